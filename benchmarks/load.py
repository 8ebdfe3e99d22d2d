"""Load over HTTP: by wrk (in C) where it is installed, else by aiohttp, whose own work then weighs more.

A load generator, the server and the database share the cores: compare within one generator only, and look at the
server's own CPU for each request.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle

import aiohttp

WRK_SCRIPT = """
local paths = {%(paths)s}
local at = 0
wrk.method = %(method)s
wrk.body = %(body)s
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at %% #paths + 1
  return wrk.format(nil, paths[at])
end
done = function(summary, latency, requests)
  local bad = summary.errors
  local form = '\\n{"requests": %%d, "seconds": %%f, "refused": %%d, "broken": %%d, "p50": %%f, "p99": %%f}\\n'
  io.write(string.format(form,
    summary.requests, summary.duration / 1e6, bad.status, bad.connect + bad.read + bad.write + bad.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, again and again: one request, or one for each of many paths in turn."""

    method: str
    paths: Sequence[str]
    body: str = ""
    connections: int = 64


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back; `failed` counts answers of 400 and above, and requests without one. Times in milliseconds."""

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p99_ms: float


@cache
def generator() -> str:
    """By what the load is made here, and its version."""
    if not shutil.which("wrk"):
        return f"aiohttp {aiohttp.__version__}"
    told = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True)
    found = re.search(r"wrk \S*?(\d[\w.+-]*)", told.stdout + told.stderr)
    return f"wrk {found[1]}" if found else "wrk"


async def put_load(url: str, load: Load, *, seconds: float) -> Answered:
    """Send for so long, with a connection always waiting for an answer."""
    return await (_by_aiohttp if generator().startswith("aiohttp") else _by_wrk)(url, load, seconds)


async def _by_wrk(url: str, load: Load, seconds: float) -> Answered:
    texts = {name: json.dumps(text) for name, text in (("method", load.method), ("body", load.body))}
    script = WRK_SCRIPT % {"paths": ",".join(json.dumps(path) for path in load.paths), **texts}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        duration = f"{max(1, round(seconds))}s"
        options = ["-t1", f"-c{load.connections}", "-d", duration, "--timeout", "30s", "-s", file.name]
        wrk = await asyncio.create_subprocess_exec("wrk", *options, url, stdout=asyncio.subprocess.PIPE)
        output, _ = await wrk.communicate()
    told = json.loads(output.decode().strip().splitlines()[-1])
    if not told["requests"]:
        raise RuntimeError(f"{load.method} {load.paths[0]}: not one answer in {seconds} s")
    failed = told["refused"] + told["broken"]
    return Answered(told["requests"], told["seconds"], failed, round(told["p50"], 3), round(told["p99"], 3))


async def _by_aiohttp(url: str, load: Load, seconds: float) -> Answered:
    paths, took, failed = cycle(load.paths), list[float](), 0
    began = time.perf_counter()

    async def client(http: aiohttp.ClientSession) -> None:
        nonlocal failed
        while (sent := time.perf_counter()) - began < seconds:
            async with http.request(load.method, next(paths), data=load.body, headers=headers) as answer:
                await answer.read()
                failed += answer.status >= 400
            took.append(time.perf_counter() - sent)

    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(client(http) for _ in range(load.connections)))
    ordered = sorted(1000 * each for each in took)
    p50, p99 = (round(ordered[int(len(ordered) * rank)], 3) for rank in (0.50, 0.99))
    return Answered(len(took), time.perf_counter() - began, failed, p50, p99)
