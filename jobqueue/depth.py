"""How many jobs wait in one place, and whether there is room for more.

What waits is counted in the store, at most once a second; what this process let in since is added. So one process
never goes beyond the limit, and each of several by what the others let in since its last count. A refusal between
two counts costs nothing. While less than half of the limit waits nobody is kept waiting by a count.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

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


class Depth:
    """One bound on what waits. `count` counts it, up to a number; `where` says in words what is counted."""

    def __init__(self, count: Callable[[int], Awaitable[int]], *, limit: int, where: str, clock: Clock) -> None:
        self._count = count
        self._limit = limit
        self._where = where
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

    async def refresh(self) -> None:
        """Count again when that is due, and wait for it unless there is plenty of room. Raises `Unavailable`."""
        if not self.is_old:
            return
        if self._counting is None:
            self._counting = asyncio.create_task(self._recount(), name="count what waits")
            self._counting.add_done_callback(self._counted_again)
        elif self._counted is not None:
            return  # somebody else began the new count; until then the old one is right for this process
        if not self._has_plenty():
            await asyncio.shield(self._counting)

    def let_in(self, jobs: int) -> None:
        """Make room for so many. They are under way until `settle`. Raises `QueueFull`."""
        waiting = (self._counted or 0) + self._let_in
        if waiting + jobs > self._limit:
            self._tell(waiting)
            raise QueueFull(self._refusal(waiting, jobs), retry_after_seconds=self._next_count_seconds())
        self._let_in += jobs
        self._under_way += jobs

    def settle(self, jobs: int, *, not_stored: int) -> None:
        """So many that were let in are under way no more, and some of them do not wait here."""
        self._under_way -= jobs
        self._let_in -= not_stored

    async def _recount(self) -> None:
        started, let_in, under_way = self._clock.monotonic(), self._let_in, self._under_way
        self._counted = await self._count(self._limit)
        self._told = False
        # Whether those that were under way are in that number is not known.
        self._let_in += under_way - let_in
        self._counted_at = now = self._clock.monotonic()
        self._expires = now + max(COUNT_SECONDS, COUNT_FACTOR * (now - started))

    def _counted_again(self, counting: asyncio.Task[None]) -> None:
        self._counting = None
        take_note(counting)

    def _has_plenty(self) -> bool:
        if self._counted is None or self._clock.monotonic() - self._counted_at >= BELIEVED_SECONDS:
            return False
        return 2 * (self._counted + self._let_in) <= self._limit

    def _tell(self, waiting: int) -> None:
        # Once for each count: a line for each refusal would cost more than the refusal.
        if not self._told:
            self._told = True
            log.warning("jobs refused, too many wait", where=self._where, waiting=waiting, limit=self._limit)

    def _refusal(self, waiting: int, jobs: int) -> str:
        if jobs > self._limit:
            return f"{jobs} jobs at once are more than may wait {self._where}: {self._limit}"
        wanted = f"; {jobs} more are wanted" if jobs > 1 else ""
        return f"{waiting} jobs wait {self._where}, and no more than {self._limit} may{wanted}"

    def _next_count_seconds(self) -> int:
        return max(1, math.ceil(self._expires - self._clock.monotonic()))
