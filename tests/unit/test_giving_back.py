"""Attempts that are given back: their jobs wait again, and whoever could run them is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from hand_clock import HandClock
from wired_pool import LEASE, Wire, end, waiting, wired_pool

from jobqueue.job import Candidate, Claim, JobId, Lease
from jobqueue.repository import Claimed
from jobqueue.tasks import Registry


class GivingBack(Wire):
    """Notes what is claimed, given back and signalled."""

    def __init__(self, count: int) -> None:
        super().__init__(waiting(count))
        self.claimed: asyncio.Queue[Sequence[JobId]] = asyncio.Queue()
        self.released: list[JobId] = []
        self.signalled: list[JobId] = []

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self.claimed.put_nowait(job_ids)
        return await super().claim(job_ids, lease, at=at)

    async def release(self, claim: Claim, *, at: datetime) -> None:
        self.released.append(claim.job_id)

    def signal(self, candidates: Sequence[Candidate], *, at: datetime) -> None:
        assert {each.id for each in candidates} <= set(self.released)
        self.signalled += [each.id for each in candidates]


async def test_others_are_told_of_what_is_given_back_at_a_stop() -> None:
    registry, wire, all_run = Registry(), GivingBack(3), asyncio.Barrier(4)

    @registry.task("noop")
    async def forever() -> None:
        await all_run.wait()
        await asyncio.Event().wait()

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(all_run.wait(), 20)

    await end(pool, poller, grace_seconds=0)

    assert len(wire.released) == 3
    assert sorted(wire.signalled) == sorted(wire.released)


class Late(GivingBack):
    """Answers the first claim when most of its lease is over."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(1)
        self._clock = clock

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        if not self.released:
            self._clock.seconds += LEASE.total_seconds()
        return await super().claim(job_ids, lease, at=at)


async def test_what_was_claimed_too_late_keeps_its_place() -> None:
    """No look shows it: it is at hand."""
    registry, clock = Registry(), HandClock()
    wire = Late(clock)

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry, clock=clock)
    poller = asyncio.create_task(pool.poller.run())
    first, second = [await asyncio.wait_for(wire.claimed.get(), 20) for _ in range(2)]
    await asyncio.wait_for(wire.all_completed.wait(), 20)
    await end(pool, poller)

    assert list(first) == list(second) == wire.released
