"""HTTP: what the service answers a second, as a share of a bare aiohttp handler under the same load.

The bare handler parses and validates the same body and answers the same bytes: without storing it, storing it in the
plainest of group commits, and by itself; a thousand it stores as they come, and answers little; for `GET` it makes the
one find that must be made. Both are one process on uvloop; the service also with PyMongo instead of Motor, its default,
and as two processes on one port, which needs cores that nobody else wants. `server_cpu_us` is the CPU of the server,
all its processes, for each request, which holds when load generator, server and database share too few cores;
`database_cpu_us` is that of the database.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from benchmarks import cases
from benchmarks.audit import AuditFailed
from benchmarks.bench import Bench
from benchmarks.load import Answered, Load, generator, put_load
from benchmarks.machine import family_cpu_seconds, process_cpu_seconds
from benchmarks.ports import free_port
from benchmarks.processes import START_SECONDS, Process, jobqueue_process, python_process
from benchmarks.results import Line
from benchmarks.workload import BATCH

BODY = {"type": "noop", "payload": {"n": 123456, "text": "a payload of some fifty characters, as many have"}}
BULKS_IN_FLIGHT = 4
IDS = 1_000
UP = re.compile(r"^jobqueue_process_up\{.*\} 1\.0$", re.MULTILINE)

POST_TWO = "POST /jobs, 2 processes"
BARE_INSERT = "bare POST and insert_one"
STORING = (cases.POST, cases.POST_PYMONGO, POST_TWO, BARE_INSERT, cases.GROUPED)
JOBS_OF = dict.fromkeys(STORING, 1) | dict.fromkeys((cases.BULK, cases.BARE_BULK), BATCH)
"""How many documents one answer stands for."""

SINGLE = Load("POST", ["/jobs"], json.dumps(BODY))
BULK = Load("POST", ["/jobs/bulk"], json.dumps([BODY] * BATCH), connections=BULKS_IN_FLIGHT)
MANY = replace(BULK, paths=["/many"])


@dataclass(frozen=True, slots=True)
class Servers:
    """The service, the same with PyMongo and in two processes, and the bare handlers, on the same database."""

    service: Process
    pymongo: Process
    two: Process
    bare: Process
    database_pid: int
    jobs: AsyncCollection[dict[str, Any]]


async def run(bench: Bench) -> None:
    """In turns: each request of the service, then what it is compared with. A fresh database for each round."""
    seconds = float(bench.size(8, 4))
    for repeat in bench.rounds():
        async with servers(bench) as up:
            show = Load("GET", await _paths_of_jobs(up.service))
            for case, process, load in (
                (cases.POST, up.service, SINGLE),
                (cases.POST_PYMONGO, up.pymongo, SINGLE),
                (POST_TWO, up.two, SINGLE),
                (cases.BARE_POST, up.bare, SINGLE),
                (cases.GROUPED, up.bare, Load("POST", ["/grouped"], SINGLE.body)),
                (BARE_INSERT, up.bare, Load("POST", ["/stored"], SINGLE.body)),
                (cases.GET, up.service, show),
                ("GET /jobs/{id}, 2 processes", up.two, show),
                (cases.BARE_GET, up.bare, show),
                ("bare GET", up.bare, Load("GET", ["/nothing"])),
                (cases.BULK, up.service, BULK),
                (cases.BARE_BULK, up.bare, MANY),
            ):
                await measure(bench, case, up, process, load, seconds=seconds, repeat=repeat)


async def measure(
    bench: Bench, case: str, servers: Servers, process: Process, load: Load, *, seconds: float, repeat: int
) -> None:
    """One request, again and again for so long, of one of the servers."""
    await put_load(process.url, load, seconds=min(2.0, seconds))  # connections, caches, the first queue
    with bench.case(case, repeat=repeat) as line:
        stored = await servers.jobs.count_documents({})
        cpu, database_cpu = family_cpu_seconds(process.pid), process_cpu_seconds(servers.database_pid)
        answered = await put_load(process.url, load, seconds=seconds)
        cpu = family_cpu_seconds(process.pid) - cpu
        database_cpu = process_cpu_seconds(servers.database_pid) - database_cpu
        stored = await servers.jobs.count_documents({}) - stored
        line |= {
            "per_second": round(answered.requests / answered.seconds, 1),
            "server_cpu_us": round(1e6 * cpu / answered.requests, 1),
            "database_cpu_us": round(1e6 * database_cpu / answered.requests, 1),
            "failed": answered.failed,
            "p50_ms": answered.p50_ms,
            "p99_ms": answered.p99_ms,
            "generator": generator(),
        }
        audit(case, answered, stored, line)


def audit(case: str, answered: Answered, stored: int, line: Line) -> None:
    """Raises `AuditFailed` when less was stored than was answered; what was in flight at the end may be more."""
    jobs_of_one = JOBS_OF.get(case, 0)
    jobs = answered.requests * jobs_of_one
    if jobs_of_one > 1:
        line["jobs_per_second"] = round(jobs / answered.seconds, 1)
    if answered.failed or stored < jobs:
        raise AuditFailed(f"{case}: {answered.failed} failed, {stored} of {jobs} jobs stored")


@asynccontextmanager
async def servers(bench: Bench) -> AsyncIterator[Servers]:
    """All of them, up, on a fresh database."""
    async with AsyncExitStack() as stack:
        name = await stack.enter_async_context(bench.database.fresh())
        service = await stack.enter_async_context(jobqueue_process("api", bench.database, name))
        pymongo = await stack.enter_async_context(jobqueue_process("api", bench.database, name, driver="pymongo"))
        two = await stack.enter_async_context(jobqueue_process("api", bench.database, name, processes=2))
        await _both_up(two)
        answer = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "answer.json"
        answer.write_bytes(await _answer_of(service))
        port = free_port()
        program = [sys.executable, "-m", "benchmarks.bare_http", str(port), bench.database.uri, name, str(answer)]
        bare = await stack.enter_async_context(python_process(program, port=port, environment={}))
        client = await stack.enter_async_context(AsyncMongoClient[dict[str, Any]](bench.database.uri))
        yield Servers(service, pymongo, two, bare, bench.database.pid or 0, client[name].jobs)


async def _both_up(service: Process) -> None:
    """The port takes connections as soon as the first process listens."""
    async with aiohttp.ClientSession(service.url) as http, asyncio.timeout(START_SECONDS):
        while len(UP.findall(await _metrics(http))) < 2:  # noqa: ASYNC110 - no event tells of another process
            await asyncio.sleep(0.05)


async def _metrics(http: aiohttp.ClientSession) -> str:
    async with http.get("/metrics", headers={"Accept": "text/plain"}) as answer:
        return await answer.text()


async def _answer_of(service: Process) -> bytes:
    async with aiohttp.ClientSession(service.url) as http, http.post("/jobs", json=BODY) as answer:
        answer.raise_for_status()
        return await answer.read()


async def _paths_of_jobs(service: Process) -> list[str]:
    async with aiohttp.ClientSession(service.url) as http:
        async with http.post("/jobs/bulk", json=[BODY] * IDS) as answer:
            items = (await answer.json())["items"]
        return [f"/jobs/{item['id']}" for item in items]
