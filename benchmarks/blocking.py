"""Does a task that keeps a core busy stop heartbeats or HTTP? In a thread, in a process, and (as nobody should) on the
event loop itself.

One `jobqueue serve` with short leases runs the tasks while its `/livez` is asked twenty times a second, and what is
left of the leases is read from the database. A second process stands by that would rescue jobs whose lease is over.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import aiohttp
from pymongo import AsyncMongoClient

from benchmarks.audit import audit_database
from benchmarks.bench import Bench
from benchmarks.processes import jobqueue_process
from benchmarks.stopwatch import percentiles
from jobqueue.job import Status

LEASE_SECONDS = 3.0
ASKED_EVERY_SECONDS = 0.05
BUSY = {"idle": None, "in a thread": "spin-thread", "in a process": "spin-process", "on the event loop": "spin-loop"}
"""Where the task runs, and its name."""


async def run(bench: Bench) -> None:
    """Each place in turn."""
    seconds = float(bench.size(12, 4))
    for repeat in bench.rounds():
        for place, task in BUSY.items():
            await measure(bench, place, task, seconds=seconds, repeat=repeat)


async def measure(bench: Bench, place: str, task: str | None, *, seconds: float, repeat: int) -> None:
    """Answers and leases while two jobs of this task run, each for so long."""
    async with AsyncExitStack() as stack:
        name = await stack.enter_async_context(bench.database.fresh())
        leases = {"lease_seconds": LEASE_SECONDS}
        await stack.enter_async_context(
            jobqueue_process("worker", bench.database, name, queues="none-of-these", **leases)
        )
        server = await stack.enter_async_context(jobqueue_process("serve", bench.database, name, **leases))
        http = await stack.enter_async_context(aiohttp.ClientSession(server.url))
        client = await stack.enter_async_context(AsyncMongoClient[dict[str, Any]](bench.database.uri, tz_aware=True))
        jobs = [] if task is None else [{"type": task, "payload": {"seconds": seconds}}] * 2
        with bench.case(place, repeat=repeat) as line:
            if jobs:  # in one request: the first of them may hold the event loop before a second one is answered
                (await http.post("/jobs/bulk", json=jobs)).raise_for_status()
            answers, least = await asyncio.gather(_ask(http, seconds), _watch(client[name].jobs, seconds))
            line |= {**percentiles(answers), "worst_ms": round(1000 * max(answers), 1), "least_lease_seconds": least}
            await _until_all_ended(client[name].jobs)
            await audit_database(bench.database.uri, name, completed=len(jobs))


async def _ask(http: aiohttp.ClientSession, seconds: float) -> list[float]:
    """How long each answer of /livez took."""
    answers, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        async with http.get("/livez") as answer:
            answer.raise_for_status()
        answers.append(time.perf_counter() - began)
        await asyncio.sleep(ASKED_EVERY_SECONDS)
    return answers


async def _watch(jobs: Any, seconds: float) -> float | None:
    """The least that was left of any lease, in seconds; less than nothing where one was over."""
    least, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        found = await jobs.find({"status": Status.PROCESSING.value}, {"lease.expiresAt": 1}).to_list(None)
        now = datetime.now(UTC)
        least += [(job["lease"]["expiresAt"] - now).total_seconds() for job in found]
        await asyncio.sleep(ASKED_EVERY_SECONDS)
    return round(min(least), 2) if least else None


async def _until_all_ended(jobs: Any) -> None:
    async with asyncio.timeout(120):
        while await jobs.find_one({"status": {"$ne": Status.COMPLETED.value}}):  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.1)
