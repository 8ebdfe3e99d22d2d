"""How many claims travel at the same time: few jobs wait for a claim that is under way, many do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
from wired_pool import SLOTS, Wire, waiting, wired_pool

from jobqueue.job import Candidate, Job, JobId, JsonValue, Lease
from jobqueue.repository import Claimed, Window
from jobqueue.tasks import Registry
from jobqueue.worker import MAX_CLAIM, WORTH_ANOTHER_CLAIM, WorkerPool


class Slow(Wire):
    """Nothing waits but what is offered, and claims are answered when the test says so."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(jobs)
        self.looked = asyncio.Event()
        self.answer = asyncio.Event()
        self.claims: list[int] = []
        self.limits: set[int] = set()

    async def candidates(self, queues: object, *, after: object, limit: int) -> Window:
        self.limits.add(limit)
        asyncio.get_running_loop().call_soon(self.looked.set)
        return Window([], complete=True)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self.claims.append(len(job_ids))
        await self.answer.wait()
        return await super().claim(job_ids, lease, at=at)


@pytest.fixture
def jobs() -> list[Job]:
    return waiting(SLOTS)


@pytest.fixture
def store(jobs: list[Job]) -> Slow:
    return Slow(jobs)


@asynccontextmanager
async def pool_on(store: Slow, *, slots: int = SLOTS, queue_size: int = 1_000) -> AsyncIterator[WorkerPool]:
    registry = Registry()

    @registry.task("noop")
    async def noop() -> JsonValue:
        return None

    pool = wired_pool(store, registry, slots=slots, queue_size=queue_size)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(store.looked.wait(), 20)
    try:
        yield pool
    finally:
        poller.cancel()
        await asyncio.gather(poller, return_exceptions=True)


async def offer(pool: WorkerPool, jobs: Sequence[Job]) -> None:
    """Until whatever the pool does about it is under way."""
    pool.offer_candidates([Candidate.of(job) for job in jobs])
    for _ in range(5):
        await asyncio.sleep(0)


async def test_few_jobs_wait_for_the_claim_that_is_under_way_and_go_together(store: Slow, jobs: list[Job]) -> None:
    async with pool_on(store) as pool:
        await offer(pool, jobs[:1])
        for job in jobs[1:WORTH_ANOTHER_CLAIM]:
            await offer(pool, [job])
        assert store.claims == [1]

        store.answer.set()
        await offer(pool, [])
    assert store.claims == [1, WORTH_ANOTHER_CLAIM - 1]


async def test_many_jobs_are_claimed_beside_a_claim_that_is_under_way(store: Slow, jobs: list[Job]) -> None:
    async with pool_on(store) as pool:
        await offer(pool, jobs[:1])
        await offer(pool, jobs[1 : WORTH_ANOTHER_CLAIM + 1])

    assert store.claims == [1, WORTH_ANOTHER_CLAIM]


async def test_what_many_slots_could_take_is_claimed_in_parts(store: Slow) -> None:
    async with pool_on(store, slots=1_000) as pool:
        await offer(pool, waiting(3 * MAX_CLAIM))

    assert store.claims == [MAX_CLAIM, MAX_CLAIM]


async def test_no_slot_waits_though_fewer_ids_are_to_be_held_ready_than_there_are_slots(
    store: Slow, jobs: list[Job]
) -> None:
    async with pool_on(store, queue_size=1) as pool:
        await offer(pool, jobs)

    assert store.claims == [SLOTS]
    assert store.limits == {SLOTS}
