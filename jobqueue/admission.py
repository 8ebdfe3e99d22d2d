"""How much is let in: so many jobs waiting, so many accepted a second. What was let in is never dropped.

The service asks here before it stores jobs. All jobs of one request are let in, or none; what then turns out not to
have been stored (a duplicate, a poison item) is given back. Without limits this costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

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


@dataclass(slots=True)
class Admitted:
    """Jobs that were let in, by the names of their queues, and those of them that were not stored after all."""

    queues: Counter[str]
    not_stored: Counter[str] = field(default_factory=Counter)

    def give_back(self, queue: str) -> None:
        """One job for this queue was not stored."""
        self.not_stored[queue] += 1


class Admission:
    """The door."""

    def __init__(self, jobs: JobRepository, *, limits: AdmissionLimits, clock: Clock) -> None:
        self._jobs = jobs
        self._limits = limits
        self._clock = clock
        self._total = self._depth(None, limits.pending) if limits.pending is not None else None
        self._of_queues: dict[str, Depth] = {}
        self._rate = RateLimit(jobs, a_second=limits.a_second, clock=clock) if limits.a_second is not None else None

    @asynccontextmanager
    async def admit(self, queues: Iterable[str]) -> AsyncIterator[Admitted]:
        """Let in one job for each of these names of queues, all or none, while the block stores them.

        Raises `QueueFull`, `RateLimited`, `Unavailable`."""
        admitted = Admitted(Counter(queues))
        bounds = self._bounds(admitted.queues)
        for depth, _ in bounds:
            await depth.refresh()
        with ExitStack() as leaving, _noticing_refusal(admitted):
            for depth, queue in bounds:
                depth.let_in(_share(admitted.queues, queue))
                leaving.callback(_settle, depth, queue, admitted)
            if self._rate is not None:
                await self._rate.take(admitted.queues.total())
                leaving.callback(_give_back, self._rate, admitted)
            yield admitted

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


Bound = tuple[Depth, str | None]
"""A depth, and the queue it is about; None is all of them."""


@contextmanager
def _noticing_refusal(admitted: Admitted) -> Iterator[None]:
    try:
        yield
    except OutcomeUnknown:
        raise
    except JobQueueError:
        admitted.not_stored = admitted.queues
        raise


def _give_back(rate: RateLimit, admitted: Admitted) -> None:
    rate.give_back(admitted.not_stored.total())


def _settle(depth: Depth, queue: str | None, admitted: Admitted) -> None:
    depth.settle(_share(admitted.queues, queue), not_stored=_share(admitted.not_stored, queue))


def _share(jobs: Counter[str], queue: str | None) -> int:
    return jobs.total() if queue is None else jobs[queue]
