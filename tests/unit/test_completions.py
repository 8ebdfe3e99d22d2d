"""Completions that are handed over together, and what becomes of one that is not acknowledged there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wired_pool import LEASE, SLOTS, Wire, end, waiting, wired_pool

from jobqueue.errors import OutcomeUnknown, QueueFull
from jobqueue.job import Claim, JobId, JsonValue, Lease
from jobqueue.leases import LeaseKeeper
from jobqueue.repository import Claimed, Window
from jobqueue.tasks import Registry
from jobqueue.worker import MAX_UNACKNOWLEDGED


class Doubtful(Wire):
    """Does not acknowledge the first completion that it is handed, until that comes by itself and may be."""

    def __init__(self, count: int) -> None:
        super().__init__(waiting(count))
        self.together: list[int] = []
        self.came_alone = asyncio.Event()
        self.may_be_written = asyncio.Event()
        self.alone: list[JobId] = []

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        self.together.append(len(completed))
        written = await super().complete_many(completed[1:], at=at)
        return [OutcomeUnknown(completed[0][0].job_id, "no answer"), *written]

    async def complete(self, claim: Claim, result: JsonValue | None, *, at: datetime) -> None:
        self.alone.append(claim.job_id)
        self.came_alone.set()
        await self.may_be_written.wait()


async def test_a_completion_that_is_not_acknowledged_with_others_is_repeated_and_its_lease_kept() -> None:
    registry, wire, keeper = Registry(), Doubtful(10), LeaseKeeper(LEASE)
    told: list[JobId] = []

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry, keeper=keeper, on_finished=told.append)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(wire.came_alone.wait(), 30)

    assert wire.together == [10]
    assert [claim.job_id for claim in pool.running] == wire.alone
    assert keeper.claims() == pool.running
    wire.may_be_written.set()
    await end(pool, poller)
    assert not pool.running
    assert not keeper.claims()
    assert sorted(told) == sorted(job.id for job in waiting(10))


class Crowded(Wire):
    """Has no room for the first completion that comes by itself."""

    def __init__(self) -> None:
        super().__init__(waiting(1))
        self.refused = 0
        self.written = asyncio.Event()

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        return [self.full() for _ in completed]

    async def complete(self, claim: Claim, result: JsonValue | None, *, at: datetime) -> None:
        if self.refused == 1:
            raise self.full()
        self.written.set()

    def full(self) -> QueueFull:
        self.refused += 1
        return QueueFull("too many outcomes are waiting to be written")


async def test_a_completion_that_there_was_no_room_for_is_repeated() -> None:
    registry, wire = Registry(), Crowded()

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(wire.written.wait(), 30)

    assert wire.refused == 2
    await end(pool, poller)
    assert not pool.running


class Belated(Wire):
    """Answers the second look as of its beginning: what was completed during it still waited."""

    def __init__(self, count: int) -> None:
        super().__init__(waiting(count))
        self.claimed_ids: list[JobId] = []
        self.looks_again = asyncio.Event()
        self.looks_once_more = asyncio.Event()
        self._shown: list[Window] = []

    async def candidates(self, queues: object, *, after: object, limit: int) -> Window:
        self._shown.append(await super().candidates(queues, after=after, limit=limit))
        if len(self._shown) == 2:
            self.looks_again.set()
            await self.all_completed.wait()
            await asyncio.sleep(0)  # until the pool was told so
            return self._shown[0]
        if len(self._shown) == 3:
            self.looks_once_more.set()
        return self._shown[-1]

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self.claimed_ids += job_ids
        return await super().claim(job_ids, lease, at=at)


async def test_what_was_completed_during_a_look_is_not_claimed_again() -> None:
    registry, wire = Registry(), Belated(10)

    @registry.task("noop")
    async def noop() -> None:
        pool.poller.refresh()
        await wire.looks_again.wait()

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(wire.looks_again.wait(), 30)
    pool.poller.refresh()
    await asyncio.wait_for(wire.looks_once_more.wait(), 30)

    assert len(wire.claimed_ids) == 10
    await end(pool, poller)


class Unanswered(Wire):
    """Has more work than outcomes may be open, and acknowledges none until it may."""

    def __init__(self) -> None:
        super().__init__(waiting(MAX_UNACKNOWLEDGED + 5 * SLOTS))
        self.claimed = 0
        self.enough = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def candidates(self, queues: object, *, after: Any, limit: int) -> Window:
        left = [each for each in self._waiting if after is None or each > after]
        return Window(left[:limit], complete=len(left) <= limit)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self._waiting = [each for each in self._waiting if each.id not in set(job_ids)]
        self.claimed += len(job_ids)
        if self.claimed >= MAX_UNACKNOWLEDGED:
            self.enough.set()
        return await super().claim(job_ids, lease, at=at)

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        await self.may_answer.wait()
        return await super().complete_many(completed, at=at)


async def test_no_more_is_claimed_while_too_many_outcomes_are_not_acknowledged() -> None:
    registry, wire = Registry(), Unanswered()

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(wire.enough.wait(), 30)
    for _ in range(1_000):
        await asyncio.sleep(0)

    assert wire.claimed <= MAX_UNACKNOWLEDGED + SLOTS
    wire.may_answer.set()
    await asyncio.wait_for(wire.all_completed.wait(), 30)
    await end(pool, poller)
