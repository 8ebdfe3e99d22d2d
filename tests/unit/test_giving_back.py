"""Attempts that are given back: their jobs wait again, and whoever could run them is told."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime

from hand_clock import START, HandClock
from observers import settle
from wired_pool import LEASE, SLOTS, Wire, end, waiting, wired_pool

from jobqueue.errors import Unavailable
from jobqueue.job import Candidate, Claim, JobId, Lease, LeaseId, WorkerId
from jobqueue.repository import Claimed
from jobqueue.tasks import Registry
from jobqueue.worker import LATE_CLAIM_SECONDS


class GivingBack(Wire):
    """Notes what is claimed, given back and signalled."""

    def __init__(self, count: int) -> None:
        super().__init__(waiting(count))
        self.claims: asyncio.Queue[Sequence[JobId]] = asyncio.Queue()
        self.released: list[JobId] = []
        self.signalled: list[JobId] = []

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self.claims.put_nowait(job_ids)
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


class Held(GivingBack):
    """Answers claims when it is told to."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.may_answer = asyncio.Event()

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        claimed = await super().claim(job_ids, lease, at=at)
        await self.may_answer.wait()
        return claimed


async def test_what_is_claimed_when_a_stop_has_begun_is_given_back_unrun() -> None:
    registry, wire = Registry(), Held(3)
    ran: list[str] = []

    @registry.task("noop")
    async def noop() -> None:
        ran.append("noop")

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    ids = await asyncio.wait_for(wire.claims.get(), 20)
    stopping = asyncio.create_task(pool.stop(grace_seconds=20.0, flush_seconds=20.0))
    await settle()  # it has begun
    wire.may_answer.set()
    await stopping
    await end(pool, poller)

    assert (sorted(wire.released), ran) == (sorted(ids), [])


async def test_a_job_is_not_claimed_again_while_it_runs_here() -> None:
    """Somebody put it back while its attempt, which has lost its lease, goes on."""
    registry, wire = Registry(), GivingBack(2)
    begun, may_end = asyncio.Barrier(3), asyncio.Event()

    @registry.task("noop")
    async def noop() -> None:
        await begun.wait()
        await may_end.wait()

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(begun.wait(), 20)

    pool.offer(waiting(2))
    await settle()  # what is offered is claimed in the next turn of the loop
    may_end.set()
    await asyncio.wait_for(wire.all_completed.wait(), 20)
    await end(pool, poller)

    assert wire.claims.qsize() == 1


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
    first, second = [await asyncio.wait_for(wire.claims.get(), 20) for _ in range(2)]
    await asyncio.wait_for(wire.all_completed.wait(), 20)
    await end(pool, poller)

    assert list(first) == list(second) == wire.released


class CarriedOutLate(GivingBack):
    """Does not answer the first claim, and carries it out after it was asked what that had won."""

    def __init__(self) -> None:
        super().__init__(1)
        [self.candidate] = self._waiting
        self.held: set[LeaseId] = set()

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self.claims.put_nowait(job_ids)
        if self.held:
            return Claimed([])
        if self.released:
            return await Wire.claim(self, job_ids, lease, at=at)
        self.held.add(lease.id)
        raise Unavailable("no answer")

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        return Claimed([])

    async def release_orphans(
        self, lease_ids: Collection[LeaseId], known: Collection[Claim], *, at: datetime
    ) -> Sequence[Candidate]:
        assert set(lease_ids) == self.held
        self.held.clear()
        self.released.append(self.candidate.id)
        return [self.candidate]


async def test_what_was_claimed_behind_a_lost_answer_is_run_when_it_is_given_back() -> None:
    """No look shows it, whenever the next one is."""
    registry, clock = Registry(), HandClock()
    wire = CarriedOutLate()

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry, clock=clock)
    poller = asyncio.create_task(pool.poller.run())
    for _ in range(2):  # the one without an answer, and the one that loses
        await asyncio.wait_for(wire.claims.get(), 20)

    await pool.release_orphans()
    assert not wire.released, "it may still be carried out"
    clock.seconds += 2 * LATE_CLAIM_SECONDS
    for _ in range(2):  # once is enough
        await pool.release_orphans()

    await asyncio.wait_for(wire.all_completed.wait(), 20)
    await end(pool, poller)


class WonUnanswered(GivingBack):
    """Does not answer the first claim, though it was carried out."""

    def __init__(self) -> None:
        super().__init__(1)
        self.known: list[Claim] = []

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        raise Unavailable("no answer")

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        return await super().claim(job_ids, Lease(id=lease_id, worker_id=WorkerId("w"), expires_at=START), at=START)

    async def release_orphans(
        self, lease_ids: Collection[LeaseId], known: Collection[Claim], *, at: datetime
    ) -> Sequence[Candidate]:
        self.known += known
        return []


async def test_what_was_won_behind_a_lost_answer_and_runs_is_not_given_back() -> None:
    registry, clock, begun, may_end = Registry(), HandClock(), asyncio.Event(), asyncio.Event()
    wire = WonUnanswered()

    @registry.task("noop")
    async def noop() -> None:
        begun.set()
        await may_end.wait()

    pool = wired_pool(wire, registry, clock=clock)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(begun.wait(), 20)
    clock.seconds += 2 * LATE_CLAIM_SECONDS

    await pool.release_orphans()

    assert wire.known == pool.running != []
    may_end.set()
    await end(pool, poller)


class OneByOne(GivingBack):
    """Takes a second to claim each."""

    def __init__(self, clock: HandClock, count: int) -> None:
        super().__init__(count)
        self._clock = clock

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self._clock.seconds += len(job_ids)
        return await super().claim(job_ids, lease, at=at)


async def test_many_that_take_longer_to_claim_than_their_lease_lasts_are_claimed_by_fewer_at_a_time() -> None:
    registry, clock = Registry(), HandClock()
    wire = OneByOne(clock, SLOTS)

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry, clock=clock)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(wire.all_completed.wait(), 20)
    await end(pool, poller)

    sizes = [len(wire.claims.get_nowait()) for _ in range(wire.claims.qsize())]
    assert sizes[0] == SLOTS > LEASE.total_seconds()
    assert sum(sizes) < 4 * SLOTS, "what is too much is found in a few steps"
