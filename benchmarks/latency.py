"""Enqueue to start on an idle service, against the bare cost of one insert and one claim.

Local: the pool of the process that enqueues. Across: one process enqueues, another runs, or one of several that all
wait; with change streams they are told, without them they poll. One job at a time, with pauses in which everything
falls idle; before a poll these are of random length, since equal ones would all end at the same moment between two
polls. The bare claim is `find_one_and_update`; on the embedded server, where that reads the whole collection, it is
what the product does there: `update_many` by id and a read of what was claimed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from pymongo import ReturnDocument

from benchmarks.audit import audit_database, audit_runs
from benchmarks.bench import Bench
from benchmarks.cases import BARE_PICKUP, POLLED, TOLD
from benchmarks.ceiling import bare_store
from benchmarks.in_process import NoOps, bench_settings, running_engine
from benchmarks.processes import python_process, several_workers
from benchmarks.stopwatch import percentiles
from benchmarks.witness import VARIABLE, WARM_UP, Witness, memory_folder
from benchmarks.workload import LEASE, NOOP, documents
from jobqueue.clock import ServerClock
from jobqueue.job import JobId, Lease, LeaseId, WorkerId
from jobqueue.mongo import moves
from jobqueue.mongo.store import Store
from jobqueue.service import JobService, NewJob
from jobqueue.tasks import Registry

PAUSE_SECONDS = 0.02
ACROSS_PAUSE_SECONDS = 0.25
SEVERAL = 4
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
BARE = WorkerId("bare")


async def run(bench: Bench) -> None:
    """In turns: bare, local, across with change streams to one worker and to several, and without."""
    for repeat in bench.rounds():
        await bare(bench, bench.size(300, 30), repeat)
        await local(bench, bench.size(300, 30), repeat)
        for count, case in ((1, TOLD), (SEVERAL, f"across to {SEVERAL} workers, change stream")):
            workers = partial(_told_workers, count)
            await across(bench, case, bench.size(100, 5), repeat, workers)
        await across(bench, POLLED, bench.size(30, 3), repeat, polling_worker, longer=POLL_SECONDS)


async def bare(bench: Bench, count: int, repeat: int) -> None:
    """One insert and one claim, so many times."""
    async with bench.database.fresh() as name, bare_store(bench.database, name, driver="motor") as store:
        took = []
        for document in documents(count, now=ServerClock().now()):
            began = time.perf_counter()
            await store.jobs.insert_one(document)
            claimed = await _claim(store, document["_id"])
            took.append(time.perf_counter() - began)
            assert claimed is not None
            await asyncio.sleep(PAUSE_SECONDS)
        with bench.case(BARE_PICKUP, repeat=repeat) as line:
            line |= percentiles(took)


async def _claim(store: Store, job_id: str) -> Any:
    now = ServerClock().now()
    lease = Lease(id=LeaseId(f"lease-{job_id}"), worker_id=BARE, expires_at=now + LEASE)
    update = moves.claim(lease, at=now)
    query = {"_id": JobId(job_id), "status": "pending"}
    if not store.features.embedded:
        return await store.jobs.find_one_and_update(query, update, return_document=ReturnDocument.AFTER, **store.by_id)
    await store.jobs.update_many({"_id": {"$in": [job_id]}, "status": "pending"}, update)
    return await store.jobs.find_one({"_id": job_id, "lease.id": lease.id})


class _Starts:
    """A no-op task that notes when it starts."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.registry.task(NOOP)(self._run)
        self.at: dict[int, float] = {}
        self.numbers: list[int] = []
        self._started = asyncio.Event()

    async def _run(self, payload: dict[str, int]) -> None:
        self.at[payload["n"]] = time.perf_counter()
        self.numbers.append(payload["n"])
        self._started.set()

    async def wait(self) -> None:
        """Until another one has started."""
        await asyncio.wait_for(self._started.wait(), PATIENCE_SECONDS)
        self._started.clear()


async def local(bench: Bench, count: int, repeat: int) -> None:
    """So many jobs, run by the process that enqueues them."""
    starts, took = _Starts(), []
    async with bench.database.fresh() as name:
        settings = bench_settings(bench.database, name, workers=10)
        with bench.case("local", repeat=repeat) as line:
            async with running_engine(settings, starts.registry, workers=True) as engine:
                for number in range(count):
                    began = time.perf_counter()
                    await engine.service.enqueue(NewJob(type=NOOP, payload={"n": number}))
                    await starts.wait()
                    took.append(starts.at[number] - began)
                    await asyncio.sleep(PAUSE_SECONDS)
            line |= percentiles(took)
            audit_runs(starts.numbers, jobs=count)
            await audit_database(bench.database.uri, name, completed=count)


def _told_workers(count: int, bench: Bench, name: str) -> AbstractAsyncContextManager[None]:
    return several_workers(count, bench.database, name)


@asynccontextmanager
async def polling_worker(bench: Bench, name: str) -> AsyncIterator[None]:
    """A worker that hears of nothing."""
    settings = {"MONGODB_URI": bench.database.uri, "DATABASE": name, "POLL_SECONDS": POLL_SECONDS}
    environment = {f"JOBQUEUE_{key}": str(value) for key, value in settings.items()}
    program = [sys.executable, "-m", "benchmarks.polling_worker"]
    async with python_process(program, port=None, environment=environment):
        yield


async def across(bench: Bench, case: str, count: int, repeat: int, worker: Any, *, longer: float = 0.0) -> None:
    """So many jobs, run by another process. Pauses last longer by a random part of `longer`, the same in each run."""
    random = Random(repeat)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        witness = Witness(Path(folder), "latency")
        os.environ[VARIABLE] = str(witness.path)
        async with bench.database.fresh() as name:
            settings = bench_settings(bench.database, name)
            starting: AbstractAsyncContextManager[None] = worker(bench, name)
            with bench.case(case, repeat=repeat) as line:
                async with running_engine(settings, NoOps(0).registry, workers=False) as engine, starting:
                    await _enqueue(engine.service, witness, WARM_UP)
                    for number in range(count):
                        await asyncio.sleep(ACROSS_PAUSE_SECONDS + random.uniform(0.0, longer))
                        await _enqueue(engine.service, witness, number)
                line |= percentiles([run.ran_at - run.enqueued_at for run in witness.runs()])
                audit_runs((run.number for run in witness.runs()), jobs=count)


async def _enqueue(service: JobService, witness: Witness, number: int) -> None:
    before = witness.count()
    await service.enqueue(NewJob(type=NOOP, payload={"n": number, "t": time.time()}))
    if not await witness.wait(before + 1, seconds=PATIENCE_SECONDS):
        raise RuntimeError(f"job {number} did not start within {PATIENCE_SECONDS} s")
