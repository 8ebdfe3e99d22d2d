"""Answers that cost something to find out: kept for a while, and asked for once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from jobqueue.clock import Clock
from jobqueue.loop import take_note

CACHE_SECONDS = 1.0
CACHE_FACTOR = 10
"""Asking may take a tenth of the time at most: where it is slow (the embedded server reads every job that it
counts) the answer is kept longer."""

T = TypeVar("T")


class Cached(Generic[T]):
    """The latest answer of `ask`, at most a second old, or ten times as old as it took to find out."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Task[T] | None = None
        self._answer: T
        self._expires = float("-inf")

    async def get(self) -> T:
        """Raises what `ask` raises; then nothing is kept, and all who wait are told."""
        if self._clock.monotonic() < self._expires:
            return self._answer
        if self._asking is None:
            self._asking = asyncio.create_task(self._find_out(), name="find out what is kept")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    async def _find_out(self) -> T:
        started = self._clock.monotonic()
        answer = self._answer = await self._ask()
        now = self._clock.monotonic()
        self._expires = now + max(CACHE_SECONDS, CACHE_FACTOR * (now - started))
        return answer

    def _asked(self, asking: asyncio.Task[T]) -> None:
        self._asking = None
        take_note(asking)
