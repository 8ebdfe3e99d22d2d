"""The engine, enqueue to completed with a no-op task in one process, as a share of the ceiling in the same round.

"Bulk" enqueues 1,000 at a time, three such calls in flight, while the pool of the same process runs them. "One by one"
is 1,000 concurrent callers of `enqueue`, each waiting for its own answer: only the group commit makes batches of them.
"Drain" begins when all jobs are stored. The clock stops when every outcome is acknowledged and the engine is drained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import ceiling
from benchmarks.audit import audit_database, audit_runs
from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.in_process import GRACE_SECONDS, Driver, NoOps, bench_settings, running_engine
from benchmarks.stopwatch import Stopwatch
from benchmarks.workload import BATCH, new_jobs
from jobqueue.app import Engine
from jobqueue.mongo.store import chunks
from jobqueue.service import JobService, NewJob
from jobqueue.settings import Settings

BULKS_IN_FLIGHT = 3
CALLERS = 1_000

Enqueue = Callable[[JobService, list[NewJob]], Awaitable[None]]


async def run(bench: Bench) -> None:
    """In turns: the ceiling, then what is measured against it, for both drivers."""
    count = bench.size(10_000, 2_000)
    for repeat in bench.rounds():
        for driver in ceiling.DRIVERS:
            await ceiling.measure(bench, count, driver=driver, in_flight=ceiling.IN_FLIGHT, repeat=repeat)
            await measure(bench, f"bulk, {driver}", enqueue_in_bulk, count, driver=driver, repeat=repeat)
            await measure(bench, f"one by one, {driver}", enqueue_one_by_one, count, driver=driver, repeat=repeat)
            await measure_drain(bench, count, driver=driver, repeat=repeat)


async def measure(bench: Bench, case: str, enqueue: Enqueue, count: int, *, driver: Driver, repeat: int) -> None:
    """Enqueue and run so many jobs at the same time."""
    async with bench.database.fresh() as name:
        noops, settings = NoOps(count), bench_settings(bench.database, name, driver=driver)
        with bench.case(case, repeat=repeat) as line:
            async with running_engine(settings, noops.registry, workers=True) as engine:
                line |= await through(bench.database, engine, noops, enqueue=enqueue, jobs=new_jobs(count))
            await audit(bench, name, noops, count)


async def through(
    database: Database, engine: Engine, noops: NoOps, *, enqueue: Enqueue, jobs: list[NewJob]
) -> dict[str, Any]:
    """Figures of these jobs, from the first call until the engine is drained."""
    with Stopwatch(database.pid) as watch:
        with Stopwatch() as enqueueing:
            await enqueue(engine.service, jobs)
        await noops.all_ran.wait()
        await engine.drain(GRACE_SECONDS)
    enqueued = round(len(jobs) / enqueueing.seconds, 1)
    return {"jobs": len(jobs), **watch.per(len(jobs)), "enqueued_per_second": enqueued}


async def measure_drain(bench: Bench, count: int, *, driver: Driver, repeat: int) -> None:
    """Run so many jobs that are stored already; the start of the pool is part of it."""
    async with bench.database.fresh() as name:
        noops, settings = NoOps(count), bench_settings(bench.database, name, driver=driver)
        await store_jobs(settings, count)
        with bench.case(f"drain, {driver}", repeat=repeat) as line:
            async with AsyncExitStack() as stack:  # closing the connections, up to 2 s, is not part of it
                with Stopwatch(bench.database.pid) as watch:
                    engine = await stack.enter_async_context(running_engine(settings, noops.registry, workers=True))
                    await noops.all_ran.wait()
                    await engine.drain(GRACE_SECONDS)
            line |= {"jobs": count, **watch.per(count)}
            await audit(bench, name, noops, count)


async def store_jobs(settings: Settings, count: int) -> None:
    """Enqueue so many jobs from an engine without a pool."""
    async with running_engine(settings, NoOps(0).registry, workers=False) as engine:
        await enqueue_in_bulk(engine.service, new_jobs(count))


async def enqueue_in_bulk(service: JobService, jobs: list[NewJob]) -> None:
    """Many at a time, some calls in flight."""
    batches = iter(chunks(jobs, BATCH))

    async def caller() -> None:
        for batch in batches:
            await service.enqueue_many(batch)

    await asyncio.gather(*(caller() for _ in range(BULKS_IN_FLIGHT)))


async def enqueue_one_by_one(service: JobService, jobs: list[NewJob]) -> None:
    """Many callers, each with one job at a time."""
    await asyncio.gather(*(_call(service, iterator) for iterator in [iter(jobs)] for _ in range(CALLERS)))


async def _call(service: JobService, jobs: Iterator[NewJob]) -> None:
    for job in jobs:
        await service.enqueue(job)


async def audit(bench: Bench, name: str, noops: NoOps, count: int) -> None:
    """Raises `AuditFailed` unless each of these jobs ran once, here and as the database tells."""
    audit_runs(noops.numbers, jobs=count)
    await audit_database(bench.database.uri, name, completed=count)
