"""How much memory the processes take under a backlog, and under a flood that is refused.

    python -m benchmarks.memory [--jobs 100000] [--build rust|python] [--flood-seconds 30]

An api and a worker, each its own process, on the embedded server. First jobs are posted until so many wait while a
worker of one slot is busy; then clients flood the api with what it refuses: bodies that are too large, nested too
deeply, not JSON, of wrong types, and jobs beyond MAX_PENDING; then twenty slots drain some of the backlog. One JSON
line a step: resident memory now, and the highest so far, in MiB. Linux only (it reads /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import aiohttp
from databases import DatabaseProcess
from observers import WITNESSED, Client
from processes import ServiceProcess

BULK = 1_000
FLOODERS = 64
DRAIN_SECONDS = 20
LARGE = 3 << 20
REFUSED: list[Callable[[], bytes]] = [
    lambda: b'{"type": "a", "payload": "' + b"x" * LARGE + b'"}',
    lambda: b"[" * 500_000,
    lambda: b'{"payload": ' + b"[" * 65 + b"]" * 65 + b"}",
    lambda: b"no json " * 10_000,
    lambda: json.dumps({"type": "a", "tags": ["t" * 100] * 10_000}).encode(),
    lambda: b'{"type": "work", "payload": "' + b"x" * 100_000 + b'"}',
]


def memory(process: ServiceProcess) -> dict[str, float]:
    """In MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    kibibytes = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE)}
    return {"now": round(kibibytes["VmRSS"] / 1024, 1), "highest": round(kibibytes["VmHWM"] / 1024, 1)}


def tell(step: str, **figures: object) -> None:
    print(json.dumps({"step": step, **figures}), flush=True)


async def fill(client: Client, count: int) -> None:
    """So many jobs, which wait."""
    for _ in range(0, count, BULK):
        await client.bulk([{"type": "work", "payload": {"seconds": 0, "fill": "x" * 200}} for _ in range(BULK)])


async def flood(http: aiohttp.ClientSession, url: str, *, seconds: float) -> dict[int, int]:
    """Send what is refused from many connections; returns how often each status was answered."""
    answers: dict[int, int] = {}
    ends = time.monotonic() + seconds

    async def one(first: int) -> None:
        for body in cycle(REFUSED[first:] + REFUSED[:first]):
            if time.monotonic() > ends:
                return
            with contextlib.suppress(aiohttp.ClientError):  # a connection is closed on a body that is too large
                headers = {"Content-Type": "application/json"}
                async with http.post(url + "/jobs", data=body(), headers=headers) as answer:
                    answers[answer.status] = answers.get(answer.status, 0) + 1

    await asyncio.gather(*(one(number % len(REFUSED)) for number in range(FLOODERS)))
    return answers


async def measure(jobs: int, build: str, flood_seconds: float) -> None:
    """All steps."""
    with tempfile.TemporaryDirectory() as folder:
        async with DatabaseProcess(Path(folder) / "database", build=build) as database:
            env = {"JOBQUEUE_MONGODB_URI": database.uri, "JOBQUEUE_TEST_WITNESS": str(Path(folder) / "witness")}
            api_env = env | {"JOBQUEUE_PORT": "0", "JOBQUEUE_MAX_PENDING": str(jobs)}
            worker = ("worker", "--tasks", WITNESSED)
            async with aiohttp.ClientSession() as http, ServiceProcess("api", env=api_env) as api:
                client = Client(http, api.url)
                await client.bulk([{"type": "work", "payload": {"seconds": 3_600}}])
                async with ServiceProcess(*worker, env=env | {"JOBQUEUE_WORKERS": "1"}) as busy:
                    tell("started", api=memory(api), worker=memory(busy))
                    for step in range(1, 11):
                        await fill(client, jobs // 10)
                        tell(f"{step * jobs // 10} jobs wait", api=memory(api), worker=memory(busy))
                    answers = await flood(http, api.url, seconds=flood_seconds)
                    tell("flooded", api=memory(api), worker=memory(busy), answers=answers)
                async with ServiceProcess(*worker, env=env | {"JOBQUEUE_WORKERS": "20"}) as draining:
                    await asyncio.sleep(DRAIN_SECONDS)
                    tell(f"twenty slots drain for {DRAIN_SECONDS} s", api=memory(api), worker=memory(draining))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--build", choices=["rust", "python"], default="rust")
    parser.add_argument("--flood-seconds", type=float, default=30.0)
    options = parser.parse_args()
    asyncio.run(measure(options.jobs, options.build, options.flood_seconds))
