"""How much is let in: so many jobs waiting, so many accepted a second. What was let in is never dropped.

The service asks here before it stores jobs. All jobs of one request are let in, or none; what then turns out not to
have been stored (a duplicate, a poison item) is given back. Without limits this costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

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


Bound = tuple[Depth, str | None]
"""A depth, and the queue it is about; None is all of them."""


class Admitted:
    """Jobs that were let in, by the names of their queues, while the block of this context manager stores them.

    Entering lets in all of them or none. Raises `QueueFull`, `RateLimited`, `Unavailable`."""

    def __init__(self, queues: Counter[str], bounds: Sequence[Bound], rate: RateLimit | None) -> None:
        self._queues = queues
        self._bounds = bounds
        self._rate = rate
        self._not_stored: Counter[str] = Counter()
        self._entered: list[Bound] = []
        self._taken = False

    def give_back(self, queue: str) -> None:
        """One job for this queue was not stored."""
        self._not_stored[queue] += 1

    async def __aenter__(self) -> Self:
        for depth, _ in self._bounds:
            await depth.refresh()
        try:
            await self._enter()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def _enter(self) -> None:
        for bound in self._bounds:
            depth, queue = bound
            depth.let_in(_share(self._queues, queue))
            self._entered.append(bound)
        if self._rate is not None:
            await self._rate.take(self._queues.total())
            self._taken = True

    def _leave(self, error: BaseException | None) -> None:
        if isinstance(error, JobQueueError) and not isinstance(error, OutcomeUnknown):
            self._not_stored = self._queues
        if self._rate is not None and self._taken:
            self._rate.give_back(self._not_stored.total())
        for depth, queue in self._entered:
            depth.settle(_share(self._queues, queue), not_stored=_share(self._not_stored, queue))


class Admission:
    """The door."""

    def __init__(self, jobs: JobRepository, *, limits: AdmissionLimits, clock: Clock) -> None:
        self._jobs = jobs
        self._limits = limits
        self._clock = clock
        self._total = self._depth(None, limits.pending) if limits.pending is not None else None
        self._of_queues: dict[str, Depth] = {}
        self._rate = RateLimit(jobs, a_second=limits.a_second, clock=clock) if limits.a_second is not None else None

    def admit(self, queues: Iterable[str]) -> Admitted:
        """Let in one job for each of these names of queues, all or none, while the block stores them."""
        counted = Counter(queues)
        return Admitted(counted, self._bounds(counted), self._rate)

    def _bounds(self, queues: Iterable[str]) -> list[Bound]:
        """What bounds these jobs: all that waits, and what waits in each of their queues."""
        bounds: list[Bound] = [(self._total, None)] if self._total is not None else []
        if self._limits.pending_per_queue is not None:
            bounds += [(self._of_queue(queue, self._limits.pending_per_queue), queue) for queue in queues]
        return bounds

    def _of_queue(self, queue: str, limit: int) -> Depth:
        if len(self._of_queues) >= MAX_QUEUES_WATCHED:
            self._of_queues = {name: depth for name, depth in self._of_queues.items() if not depth.idle}
        if queue not in self._of_queues:
            self._of_queues[queue] = self._depth(queue, limit)
        return self._of_queues[queue]

    def _depth(self, queue: str | None, limit: int) -> Depth:
        where = "in all" if queue is None else f"in the queue {queue!r}"
        return Depth(partial(self._jobs.count_waiting, queue), limit=limit, where=where, clock=self._clock)


def _share(jobs: Counter[str], queue: str | None) -> int:
    return jobs.total() if queue is None else jobs[queue]
