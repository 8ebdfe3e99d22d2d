"""How many jobs wait in one place, and whether there is room for more.

What waits is counted in the store, at most once a second; what this process let in since is added. So one process
never goes beyond the limit, and each of several by what the others let in since its last count. A refusal between
two counts costs nothing. While less than half of the limit waits nobody is kept waiting by a count. Places that are
asked about together are counted together: one after the other, thousands of queues would take seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import structlog

from jobqueue.clock import Clock
from jobqueue.errors import QueueFull
from jobqueue.loop import take_note

COUNT_SECONDS = 1.0
COUNT_FACTOR = 10
"""Counting may take a tenth of the time at most: where it is slow, its answer is kept longer."""

BELIEVED_SECONDS = 10.0
"""So old a count may be that says that there is plenty of room, while the next one is under way."""

log = structlog.get_logger(__name__)


Count: TypeAlias = "Callable[[Sequence[Depth]], Awaitable[Sequence[int]]]"
"""Counts what waits in each of these places, up to its limit."""


class _Before(NamedTuple):
    """What was known when a count began."""

    at: float
    let_in: int
    under_way: int


class Depth:
    """One bound on what waits: in one queue, or (None) in all of them."""

    def __init__(self, queue: str | None, *, limit: int, clock: Clock) -> None:
        self.queue = queue
        self.limit = limit
        self._where = "in all" if queue is None else f"in the queue {queue!r}"
        self._clock = clock
        self._counted: int | None = None
        self._let_in = 0
        self._under_way = 0
        self.asking = 0
        """How many who ask for room have not settled yet."""
        self._counted_at = float("-inf")
        self._expires = float("-inf")
        self._counting: asyncio.Task[None] | None = None
        self._told = False

    @property
    def idle(self) -> bool:
        """Whether nothing is known here that would not have to be counted again."""
        return self.asking == 0 and self.is_old

    @property
    def is_old(self) -> bool:
        """Whether it is time to count again."""
        return self._clock.monotonic() >= self._expires

    @staticmethod
    async def refresh(depths: Sequence[Depth], count: Count) -> None:
        """Count again where that is due, all of them at once, and wait for it where there is not plenty of room.

        Raises `Unavailable`."""
        old = [depth for depth in depths if depth.is_old]
        begun: asyncio.Task[None] | None = None
        if due := [depth for depth in old if depth._counting is None]:
            begun = asyncio.create_task(_recount(due, count), name="count what waits")
            for depth in due:
                depth._counting = begun
            begun.add_done_callback(partial(_counted_again, due))
        # Of those that somebody else counts, the old count is right for this process until the new one is there.
        needed = (each for each in old if each._counting is begun or each._counted is None)
        for counting in {each._counting for each in needed if not each._has_plenty()}:
            assert counting is not None
            await asyncio.shield(counting)

    def let_in(self, jobs: int) -> None:
        """Make room for so many. They are under way until `settle`. Raises `QueueFull`."""
        waiting = (self._counted or 0) + self._let_in
        if waiting + jobs > self.limit:
            self._tell(waiting)
            raise QueueFull(self._refusal(waiting, jobs), retry_after_seconds=self._next_count_seconds())
        self._let_in += jobs
        self._under_way += jobs

    def settle(self, jobs: int, *, not_stored: int) -> None:
        """So many that were let in are under way no more, and some of them do not wait here."""
        self._under_way -= jobs
        self._let_in -= not_stored

    def _before_count(self) -> _Before:
        return _Before(self._clock.monotonic(), self._let_in, self._under_way)

    def _recounted(self, counted: int, before: _Before) -> None:
        self._counted = counted
        self._told = False
        # Whether those that were under way are in that number is not known.
        self._let_in += before.under_way - before.let_in
        self._counted_at = now = self._clock.monotonic()
        self._expires = now + max(COUNT_SECONDS, COUNT_FACTOR * (now - before.at))

    def _has_plenty(self) -> bool:
        if self._counted is None or self._clock.monotonic() - self._counted_at >= BELIEVED_SECONDS:
            return False
        return 2 * (self._counted + self._let_in) <= self.limit

    def _tell(self, waiting: int) -> None:
        # Once for each count: a line for each refusal would cost more than the refusal.
        if not self._told:
            self._told = True
            log.warning("jobs refused, too many wait", where=self._where, waiting=waiting, limit=self.limit)

    def _refusal(self, waiting: int, jobs: int) -> str:
        if jobs > self.limit:
            return f"{jobs} jobs at once are more than may wait {self._where}: {self.limit}"
        wanted = f"; {jobs} more are wanted" if jobs > 1 else ""
        return f"{waiting} jobs wait {self._where}, and no more than {self.limit} may{wanted}"

    def _next_count_seconds(self) -> int:
        return max(1, math.ceil(self._expires - self._clock.monotonic()))


async def _recount(depths: Sequence[Depth], count: Count) -> None:
    before = [depth._before_count() for depth in depths]
    for depth, counted, was in zip(depths, await count(depths), before, strict=True):
        depth._recounted(counted, was)


def _counted_again(depths: Sequence[Depth], counting: asyncio.Task[None]) -> None:
    for depth in depths:
        depth._counting = None
    take_note(counting)
