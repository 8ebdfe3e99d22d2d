"""Deadlines of many things at once, without a timer for each.

What is given equally long is over in the order in which it began, so one timer for each length of time is enough: it
stands at the end of the oldest. A timer is left alone when what it was set for ends early, as nearly all do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

MOST_IDLE = 16
"""Lengths of time under which nothing is going on, whose timers are kept because more of them may come."""

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Tells when the time of something is over. Belongs to one event loop."""

    def __init__(self, on_over: Callable[[T], None]) -> None:
        """`on_over` is called once for each that has not ended within its time."""
        self._on_over = on_over
        self._lines: dict[float, _Line[T]] = {}

    def begin(self, what: T, seconds: float) -> None:
        """From now on it has so long."""
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = _Line(seconds, self._on_over)
        line.add(what)

    def end(self, what: T, seconds: float) -> None:
        """It has ended, be it in time or not; `seconds` as it was begun."""
        line = self._lines.get(seconds)
        if line is None:
            return  # its time was over, as that of all the others of this length
        line.ends.pop(what, None)
        if not line.ends and len(self._lines) > MOST_IDLE:
            # Clients make up lengths of time.
            line.close()
            del self._lines[seconds]

    def close(self) -> None:
        """Tell of nothing more of what has begun."""
        for line in self._lines.values():
            line.close()


class _Line(Generic[T]):
    """What has equally long, in the order in which it is over."""

    def __init__(self, seconds: float, on_over: Callable[[T], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._on_over = on_over
        self._timer: asyncio.TimerHandle | None = None
        self.ends: dict[T, float] = {}

    def add(self, what: T) -> None:
        end = self.ends[what] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for what, end in list(self.ends.items()):
            if end > now:
                self._timer = self._loop.call_at(end, self._look)
                return
            if self.ends.pop(what, None) is not None:  # not ended by another that was just told
                self._on_over(what)
