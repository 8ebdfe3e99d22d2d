"""Answers that cost something to find out: kept for a while, and asked for once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from jobqueue.clock import Clock

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
        self._turn = asyncio.Lock()
        self._answer: T
        self._expires = float("-inf")

    async def get(self) -> T:
        """Raises what `ask` raises; then nothing is kept."""
        async with self._turn:
            if self._clock.monotonic() >= self._expires:
                started = self._clock.monotonic()
                self._answer = await self._ask()
                now = self._clock.monotonic()
                self._expires = now + max(CACHE_SECONDS, CACHE_FACTOR * (now - started))
            return self._answer
