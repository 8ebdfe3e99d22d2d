"""The ceiling: what the driver alone does with the same documents and indexes, and nothing else.

`insert_many` of 1,000, `update_many` that claims 100 by their ids, `update_many` that completes those 100. No read
after the claim, no validation, no running table, no task: nothing that is a job service. "Sequential" waits for each
call; "pipelined" has three of each kind in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.audit import audit_database
from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.in_process import Driver, bench_settings
from benchmarks.results import Line
from benchmarks.stopwatch import Stopwatch
from benchmarks.workload import BATCH, LEASE, Document, documents
from jobqueue.clock import Identifiers, ServerClock
from jobqueue.driver import connect
from jobqueue.job import Claim, JobId, Lease, WorkerId
from jobqueue.mongo import moves
from jobqueue.mongo.calls import settled
from jobqueue.mongo.indexes import ensure_indexes
from jobqueue.mongo.store import Store, chunks

CLAIMED = 100
IN_FLIGHT = 3
WORKER = WorkerId("ceiling")

DRIVERS: tuple[Driver, ...] = ("pymongo", "motor")


async def run(bench: Bench) -> None:
    """Each driver, one call after another and pipelined."""
    count = bench.size(10_000, 2_000)
    for repeat in bench.rounds():
        for driver in DRIVERS:
            for in_flight in (1, IN_FLIGHT):
                await measure(bench, count, driver=driver, in_flight=in_flight, repeat=repeat)


async def measure(bench: Bench, count: int, *, driver: Driver, in_flight: int, repeat: int) -> None:
    """One case: so many jobs through the three calls."""
    order = "sequential" if in_flight == 1 else "pipelined"
    with bench.case(f"ceiling {order}, {driver}", repeat=repeat) as line:
        line |= await through(bench.database, count, driver=driver, in_flight=in_flight)


async def through(
    database: Database, count: int, *, driver: Driver, in_flight: int = IN_FLIGHT, claimed: int = CLAIMED
) -> Line:
    """Figures of so many jobs through the three calls, so many of them claimed and completed at a time; audited."""
    async with database.fresh() as name, bare_store(database, name, driver=driver) as store:
        ready = documents(count, now=ServerClock().now())
        with Stopwatch(database.pid) as watch:
            await drive(store, ready, in_flight=in_flight, claimed=claimed)
        await audit_database(database.uri, name, completed=count)
    return {"jobs": count, **watch.per(count)}


@asynccontextmanager
async def bare_store(database: Database, name: str, *, driver: Driver) -> AsyncIterator[Store]:
    """The collections with their indexes, and nothing around them."""
    store = Store(connect(bench_settings(database, name, driver=driver), database.uri), name)
    await store.find_out()
    await ensure_indexes(store)
    yield store
    await settled(store.client.close())


async def drive(store: Store, ready: Sequence[Document], *, in_flight: int = IN_FLIGHT, claimed: int = CLAIMED) -> None:
    """Store, claim and complete these documents."""
    if in_flight == 1:
        for batch in chunks(ready, BATCH):
            await _insert(store, batch)
            for part in chunks(batch, claimed):
                await _complete(store, await _claim(store, part))
    else:
        await _Pipeline(store, in_flight, claimed).drive(ready)


class _Pipeline:
    """Three stages with a queue before each, so many calls of each stage in flight; None tells a stage its end."""

    def __init__(self, store: Store, in_flight: int, claimed: int) -> None:
        self._store = store
        self._in_flight = in_flight
        self._claimed_at_a_time = claimed
        self._stored: asyncio.Queue[Sequence[Document] | None] = asyncio.Queue()
        self._claimed: asyncio.Queue[Sequence[Claim] | None] = asyncio.Queue()

    async def drive(self, ready: Sequence[Document]) -> None:
        batches = iter(chunks(ready, BATCH))
        await asyncio.gather(
            self._stage(lambda: self._insert_all(batches), self._stored),
            self._stage(self._claim_all, self._claimed),
            *(self._complete_all() for _ in range(self._in_flight)),
        )

    async def _stage(self, work: Any, out: asyncio.Queue[Any]) -> None:
        await asyncio.gather(*(work() for _ in range(self._in_flight)))
        for _ in range(self._in_flight):
            out.put_nowait(None)

    async def _insert_all(self, batches: Any) -> None:
        for batch in batches:
            await _insert(self._store, batch)
            for part in chunks(batch, self._claimed_at_a_time):
                self._stored.put_nowait(part)

    async def _claim_all(self) -> None:
        while (part := await self._stored.get()) is not None:
            self._claimed.put_nowait(await _claim(self._store, part))

    async def _complete_all(self) -> None:
        while (claims := await self._claimed.get()) is not None:
            await _complete(self._store, claims)


async def _insert(store: Store, batch: Sequence[Document]) -> None:
    await store.jobs.insert_many(batch, ordered=False)


async def _claim(store: Store, part: Sequence[Document]) -> Sequence[Claim]:
    now = ServerClock().now()
    lease = Lease(id=Identifiers().lease_id(), worker_id=WORKER, expires_at=now + LEASE)
    ids = [JobId(document["_id"]) for document in part]
    query = {"_id": {"$in": ids}, "status": "pending"}
    answer = await store.jobs.update_many(query, moves.claim(lease, at=now), **store.by_id)
    assert answer.matched_count == len(part)
    return [Claim(job_id, lease.id) for job_id in ids]


async def _complete(store: Store, claims: Sequence[Claim]) -> None:
    query = {"_id": {"$in": [claim.job_id for claim in claims]}, "lease.id": claims[0].lease_id}
    [statement] = moves.complete(claims[0], None, at=ServerClock().now()).statements
    answer = await store.jobs.update_many(query, statement.update, **store.by_id)
    assert answer.matched_count == len(claims)
