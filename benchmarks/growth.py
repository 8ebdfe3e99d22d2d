"""What grows with finished jobs, with a backlog, with processes, slots and payloads; the bare query beside ours.

A claim must not become dearer with what is finished, beyond what the server itself imposes. Each size has a fresh
server, and every engine a fresh process, so that their memory is of that size alone.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.audit import audit_database, audit_no_second_run, audit_runs
from benchmarks.bench import Bench
from benchmarks.ceiling import bare_store, drive
from benchmarks.database import Database, provide_database
from benchmarks.engine import enqueue_in_bulk, store_jobs, through
from benchmarks.in_process import SLOTS, Driver, NoOps, bench_settings, running_engine
from benchmarks.machine import resident_mb
from benchmarks.processes import in_fresh_process, several_workers
from benchmarks.stopwatch import Stopwatch
from benchmarks.witness import VARIABLE, Witness, memory_folder
from benchmarks.workload import BATCH, LEASE, Document, documents, finished_documents, new_jobs
from jobqueue.clock import ServerClock
from jobqueue.job import JobId, Lease, LeaseId, Status, WorkerId
from jobqueue.mongo import MongoJobRepository, moves
from jobqueue.mongo.claims import CANDIDATE_ORDER
from jobqueue.mongo.documents import CANDIDATE_FIELDS
from jobqueue.mongo.store import Store
from jobqueue.repository import JobFilter

FINISHED = [1_000, 10_000, 100_000, 1_000_000]
BACKLOGS = [1_000, 10_000, 100_000, 300_000]
"""Not a million: at each look the embedded server reads all that waits, which then takes longer than a call may."""

CLAIMED = 100
TIMES = 5
"""Of so many calls the quickest counts; claims are made so often by each, in turns."""
TO_CLAIM = 2 * TIMES * CLAIMED
PAGE = 50
PAGE_BYTES = 4 << 20
WORKER = WorkerId("growth")
DRIVER: Driver = "pymongo"
PATIENCE_SECONDS = 600.0


async def run(bench: Bench) -> None:
    """Each dimension, from little to much, in every round."""
    for repeat in bench.rounds():
        for jobs in FINISHED[: bench.size(len(FINISHED), 1)]:
            async with _fresh_server(bench) as fresh:
                await with_finished(fresh, jobs, repeat)
        for jobs in BACKLOGS[: bench.size(len(BACKLOGS), 1)]:
            async with _fresh_server(bench) as fresh:
                await with_backlog(fresh, jobs, repeat)
        for processes in [1, 2, 4, 8][: bench.size(4, 2)]:
            await _with_processes(bench, processes, repeat)
        for slots in [10, 100, 1_000][: bench.size(3, 2)]:
            await _with_slots(bench, slots, repeat)
        for payload_bytes in [100, 1_000, 10_000, 100_000][: bench.size(4, 2)]:
            await _with_payloads(bench, payload_bytes, repeat)


@asynccontextmanager
async def _fresh_server(bench: Bench) -> AsyncIterator[Bench]:
    """The same on a server that holds nothing of other sizes, unless all is to be on the one that was given."""
    async with provide_database() as database:
        yield replace(bench, database=database)


async def with_finished(bench: Bench, finished: int, repeat: int) -> None:
    """Beside so many finished jobs: the queries, the bare calls, and the engine."""
    count = bench.size(5_000, 200)
    async with bench.database.fresh() as name:
        async with bare_store(bench.database, name, driver=DRIVER) as store:
            await _fill(store, finished, _finished)
            await _fill(store, TO_CLAIM, _waiting)
            with bench.case(f"{finished} finished: queries", repeat=repeat) as line:
                line |= await _queries(store, name)
            await store.jobs.delete_many({"status": {"$ne": Status.COMPLETED.value}})
            with bench.case(f"{finished} finished: bare", repeat=repeat) as line:
                with Stopwatch(bench.database.pid) as watch:
                    await drive(store, documents(count, now=ServerClock().now()))
                line |= watch.per(count)
        with bench.case(f"{finished} finished: engine", repeat=repeat) as line:
            line |= await in_fresh_process(run_new_jobs, bench.database, name, count)
            await audit_database(bench.database.uri, name, completed=finished + 2 * count)


async def with_backlog(bench: Bench, backlog: int, repeat: int) -> None:
    """With so many waiting jobs: the queries, and an engine that starts on them and runs the first."""
    async with bench.database.fresh() as name:
        await store_jobs(bench_settings(bench.database, name, driver=DRIVER), 1)  # a queue is known by its first job
        async with bare_store(bench.database, name, driver=DRIVER) as store:
            await _fill(store, backlog + TO_CLAIM - 1, _waiting)
            with bench.case(f"backlog of {backlog}: queries", repeat=repeat) as line:
                line |= await _queries(store, name)
            await store.jobs.delete_many({"status": Status.PROCESSING.value})
        with bench.case(f"backlog of {backlog}", repeat=repeat) as line:
            count = min(backlog, bench.size(5_000, 200))
            line |= await in_fresh_process(run_first_jobs, bench.database, name, count)
            await audit_database(bench.database.uri, name, completed=line["ran"], waiting=True)


async def _fill(store: Store, count: int, make: Callable[..., list[Document]]) -> None:
    """So many documents, numbered from 1."""
    for done in range(0, count, BATCH):
        await store.jobs.insert_many(make(min(BATCH, count - done), first=done + 1), ordered=False)


def _finished(count: int, *, first: int) -> list[Document]:
    return finished_documents(count, now=ServerClock().now(), first=first)


def _waiting(count: int, *, first: int) -> list[Document]:
    return documents(count, now=ServerClock().now(), first=first)


async def run_new_jobs(
    database: Database, name: str, count: int, text: str | None = None, slots: int = SLOTS
) -> dict[str, Any]:
    """Figures of an engine that starts, and of so many jobs through it."""
    noops, began = NoOps(count), time.perf_counter()
    settings = bench_settings(database, name, driver=DRIVER, workers=slots)
    async with running_engine(settings, noops.registry, workers=True) as engine:
        started = {"start_ms": round(1000 * (time.perf_counter() - began), 1)}
        figures = await through(database, engine, noops, enqueue=enqueue_in_bulk, jobs=new_jobs(count, text=text))
        figures |= started | _memory(database)
    audit_runs(noops.numbers, jobs=count)
    return figures


async def run_first_jobs(database: Database, name: str, count: int) -> dict[str, Any]:
    """Figures of an engine that starts on a backlog, until so many jobs ran; `ran` is how many did until it stopped."""
    noops, began = NoOps(count), time.perf_counter()
    settings = bench_settings(database, name, driver=DRIVER)
    async with running_engine(settings, noops.registry, workers=True):
        started = {"start_ms": round(1000 * (time.perf_counter() - began), 1)}
        with Stopwatch(database.pid) as watch:
            await asyncio.wait_for(noops.all_ran.wait(), PATIENCE_SECONDS)
        figures = {**watch.per(count), **started, **_memory(database)}
    audit_no_second_run(noops.numbers)
    return {**figures, "ran": len(noops.numbers)}


async def _queries(store: Store, name: str) -> dict[str, float]:
    """Milliseconds of each verb, and of the bare query beside it."""
    repository = MongoJobRepository(store.client, name)
    await repository.prepare()
    newest = JobFilter()
    pending = {"queue": {"$in": ["default"]}, "status": Status.PENDING.value}
    return {
        "look_ms": await _ms(lambda: repository.candidates(["default"], after=None, limit=CLAIMED)),
        "bare_look_ms": await _ms(
            lambda: store.jobs.find(pending, CANDIDATE_FIELDS, sort=CANDIDATE_ORDER, limit=CLAIMED).to_list(None)
        ),
        **await _claims(store, repository),
        "list_ms": await _ms(lambda: repository.list(newest, before=None, limit=PAGE, max_bytes=PAGE_BYTES)),
        "bare_list_ms": await _ms(lambda: store.jobs.find({}, sort=[("seq", -1)], limit=PAGE).to_list(None)),
        "count_ms": await _ms(repository.count_by_status),
        "bare_count_ms": await _ms(lambda: _count(store)),
    }


async def _claims(store: Store, repository: MongoJobRepository) -> dict[str, float]:
    pairs = [(await _claim(store, repository), await _claim(store, None)) for _ in range(TIMES)]
    ours, bare = zip(*pairs, strict=True)
    return {"claim_ms": min(ours), "bare_claim_ms": min(bare)}


async def _claim(store: Store, repository: MongoJobRepository | None) -> float:
    """Milliseconds to claim 100 jobs, by the repository or at the least: one update, one read."""
    found = await store.jobs.find({"status": Status.PENDING.value}, {"_id": 1}, limit=CLAIMED).to_list(None)
    ids, now = [JobId(document["_id"]) for document in found], ServerClock().now()
    lease = Lease(id=LeaseId(f"lease-{ids[0]}"), worker_id=WORKER, expires_at=now + LEASE)
    query = {"_id": {"$in": ids}, "status": Status.PENDING.value}
    began = time.perf_counter()
    if repository is not None:
        await repository.claim(ids, lease, at=now)
    else:
        await store.jobs.update_many(query, moves.claim(lease, at=now), **store.by_id)
        await store.jobs.find({"_id": {"$in": ids}, "lease.id": lease.id}, **store.by_id).to_list(None)
    took = time.perf_counter() - began
    assert await store.jobs.count_documents({"_id": {"$in": ids}, "lease.id": lease.id}) == CLAIMED
    return round(1000 * took, 2)


async def _count(store: Store) -> None:
    cursor = await store.jobs.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
    await cursor.to_list(None)


async def _ms(call: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds of the quickest of some calls."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return round(1000 * min(took), 2)


async def _with_processes(bench: Bench, processes: int, repeat: int) -> None:
    """So many worker processes on one backlog; the rate is that from the first run to the last."""
    count = bench.size(9_000, 1_000)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        witness = Witness(Path(folder), "growth")
        os.environ[VARIABLE] = str(witness.path)
        async with bench.database.fresh() as name:
            await store_jobs(bench_settings(bench.database, name, driver=DRIVER), count)
            with bench.case(f"worker processes: {processes}", repeat=repeat) as line:
                async with several_workers(processes, bench.database, name, workers=100):
                    await witness.wait(count, seconds=PATIENCE_SECONDS)
                times = [run.ran_at for run in witness.runs()]
                line |= {"jobs": count, "per_second": round(count / (max(times) - min(times)), 1)}
                audit_runs((run.number for run in witness.runs()), jobs=count)
                await audit_database(bench.database.uri, name, completed=count)


async def _with_slots(bench: Bench, slots: int, repeat: int) -> None:
    count = bench.size(5_000, 200)
    await _through_engine(bench, f"{slots} slots", count, repeat, slots=slots)


async def _with_payloads(bench: Bench, payload_bytes: int, repeat: int) -> None:
    count = min(bench.size(5_000, 200), max(200, 50_000_000 // payload_bytes))
    text = "x" * payload_bytes
    async with bench.database.fresh() as name, bare_store(bench.database, name, driver=DRIVER) as store:
        ready = documents(count, now=ServerClock().now(), text=text)
        with bench.case(f"{payload_bytes} B payloads: bare", repeat=repeat) as line:
            with Stopwatch(bench.database.pid) as watch:
                await drive(store, ready)
            line |= watch.per(count)
    await _through_engine(bench, f"{payload_bytes} B payloads: engine", count, repeat, text=text)


async def _through_engine(
    bench: Bench, case: str, count: int, repeat: int, *, text: str | None = None, slots: int = SLOTS
) -> None:
    async with bench.database.fresh() as name:
        with bench.case(case, repeat=repeat) as line:
            line |= await in_fresh_process(run_new_jobs, bench.database, name, count, text, slots)
            await audit_database(bench.database.uri, name, completed=count)


def _memory(database: Database) -> dict[str, float]:
    server = {} if database.pid is None else {"server_mb": resident_mb(database.pid)}
    return {"process_mb": resident_mb(os.getpid()), **server}
