"""How much is let in: so many jobs waiting, so many accepted a second. What was let in is never dropped.

The service asks here before it stores jobs. All jobs of one request are let in, or none; what then turns out not to
have been stored (a duplicate, a poison item) is given back. Without limits this costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from jobqueue.clock import Clock
from jobqueue.depth import Depth
from jobqueue.errors import JobQueueError, OutcomeUnknown
from jobqueue.rate_limit import RateLimit
from jobqueue.repository import JobRepository

MAX_QUEUES_WATCHED = 1_000
"""Clients name queues; beyond this many those are forgotten of which nothing is known that still holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How many jobs may wait, in all and in each queue, and be accepted a second. None is no limit."""

    pending: int | None = None
    pending_per_queue: int | None = None
    a_second: int | None = None


class Bound(NamedTuple):
    """What bounds some jobs: a depth, and how many of the jobs count there."""

    depth: Depth
    jobs: int


class Admitted:
    """Jobs that were let in, while the block of this context manager stores them.

    Entering lets in all of them or none. Raises `QueueFull`, `RateLimited`, `Unavailable`."""

    __slots__ = ("_bounds", "_entered", "_jobs", "_not_stored", "_rate", "_refresh", "_taken")

    def __init__(
        self,
        jobs: int,
        bounds: Sequence[Bound],
        rate: RateLimit | None,
        refresh: Callable[[Sequence[Depth]], Awaitable[None]],
    ) -> None:
        self._jobs = jobs
        self._bounds = bounds
        self._rate = rate
        self._refresh = refresh
        self._not_stored: dict[str, int] = {}
        self._entered = 0
        self._taken = False

    def give_back(self, queue: str) -> None:
        """One job for this queue was not stored."""
        self._not_stored[queue] = self._not_stored.get(queue, 0) + 1

    async def __aenter__(self) -> Self:
        for bound in self._bounds:
            bound.depth.asking += 1
        try:
            if old := [bound.depth for bound in self._bounds if bound.depth.is_old]:
                await self._refresh(old)
            for bound in self._bounds:
                bound.depth.let_in(bound.jobs)
                self._entered += 1
            if self._rate is not None:
                await self._rate.take(self._jobs)
                self._taken = True
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        none_stored = isinstance(error, JobQueueError) and not isinstance(error, OutcomeUnknown)
        if self._rate is not None and self._taken:
            self._rate.give_back(self._jobs if none_stored else self._returned(None))
        for depth, jobs in self._bounds[: self._entered]:
            returned = self._returned(depth.queue) if self._not_stored else 0
            depth.settle(jobs, not_stored=jobs if none_stored else returned)
        for bound in self._bounds:
            bound.depth.asking -= 1

    def _returned(self, queue: str | None) -> int:
        return sum(self._not_stored.values()) if queue is None else self._not_stored.get(queue, 0)


class Admission:
    """The door."""

    def __init__(self, jobs: JobRepository, *, limits: AdmissionLimits, clock: Clock) -> None:
        self._jobs = jobs
        self._limits = limits
        self._clock = clock
        self._total = Depth(None, limit=limits.pending, clock=clock) if limits.pending is not None else None
        self._of_queues: dict[str, Depth] = {}
        self._forget_at = MAX_QUEUES_WATCHED
        self._rate = RateLimit(jobs, a_second=limits.a_second, clock=clock) if limits.a_second is not None else None

    def admit(self, queues: Sequence[str]) -> Admitted:
        """Let in one job for each of these names of queues, all or none, while the block stores them."""
        return Admitted(len(queues), self._bounds(queues), self._rate, self._refresh)

    def _bounds(self, queues: Sequence[str]) -> list[Bound]:
        """What bounds these jobs: all that waits, and what waits in each of their queues."""
        bounds = [Bound(self._total, len(queues))] if self._total is not None else []
        if (limit := self._limits.pending_per_queue) is not None:
            # Before the first of them: what is made here is not in use until all are.
            if len(self._of_queues) >= self._forget_at:
                self._forget_idle()
            bounds += [Bound(self._of_queue(queue, limit), jobs) for queue, jobs in Counter(queues).items()]
        return bounds

    def _forget_idle(self) -> None:
        self._of_queues = {name: depth for name, depth in self._of_queues.items() if not depth.idle}
        # Where so many are in use they are not gone through for each request.
        self._forget_at = max(MAX_QUEUES_WATCHED, 2 * len(self._of_queues))

    def _of_queue(self, queue: str, limit: int) -> Depth:
        if queue not in self._of_queues:
            self._of_queues[queue] = Depth(queue, limit=limit, clock=self._clock)
        return self._of_queues[queue]

    async def _refresh(self, old: Sequence[Depth]) -> None:
        # The total by itself: many queues take longer, and what took long is not counted again for long.
        if total := [depth for depth in old if depth is self._total]:
            await Depth.refresh(total, self._count_all)
        if queues := [depth for depth in old if depth is not self._total]:
            await Depth.refresh(queues, self._count_queues)

    async def _count_all(self, depths: Sequence[Depth]) -> Sequence[int]:
        return [await self._jobs.count_waiting(depth.limit) for depth in depths]

    async def _count_queues(self, depths: Sequence[Depth]) -> Sequence[int]:
        queues = [depth.queue for depth in depths if depth.queue is not None]
        return await self._jobs.count_waiting_in(queues, depths[0].limit)
