"""Keeps several processes of the service running: what is decided, apart from how processes are started.

The first process starts alone, so that what is wrong for all is found out, and told, once; then the others start
together. One that ends before it is up ends them all: a service that does not come up says so, as a single process
does. Later, whoever ends without having been asked to is started again, after half a second, then twice as long each
time; one that ended `GIVE_UP_AFTER` times, each time within a minute, is not worth starting again: the others are
stopped in order, and the service has failed. Stopping asks all of them, and waits for as long as they take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from signal import SIGTERM
from typing import Any, Protocol

import structlog

from jobqueue.errors import ProcessFailed
from jobqueue.guardian import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, STEADY_SECONDS

GIVE_UP_AFTER = 8
"""With the delays before them, eight ends in a row take a minute at the least."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended: its exit code (negative: the signal), and its last words, if it said why."""

    code: int
    reason: str | None = None

    def __str__(self) -> str:
        return self.reason or (f"exit code {self.code}" if self.code >= 0 else f"signal {-self.code}")

    @property
    def orderly(self) -> bool:
        """For one that was asked to stop; while it is still starting, SIGTERM itself ends it."""
        return self.code in (0, -SIGTERM)


class Child(Protocol):
    """A process that is being started, runs, or has ended."""

    async def up(self) -> bool:
        """Wait until it does its work; False when it ended before that."""

    async def ended(self) -> End:
        """Wait for its end."""

    def stop(self) -> None:
        """Ask it to stop in order. Does nothing when it has ended."""

    def kill(self) -> None:
        """End it at once. Does nothing when it has ended."""


class Supervisor:
    """Processes of these numbers, from `run` until `stop` or until one of them cannot be kept running."""

    def __init__(
        self,
        start: Callable[[int], Child],
        *,
        numbers: Sequence[int],
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[Coroutine[Any, Any, object], float], Awaitable[object]] = asyncio.wait_for,
    ) -> None:
        """`start` starts the process of a number. `wait` is given the wish to stop, and a delay."""
        self._start = start
        self._numbers = numbers
        self._monotonic = monotonic
        self._wait = wait
        self._children: dict[int, Child] = {}
        self._stopping = asyncio.Event()
        self._failure: str | None = None

    async def run(self, on_up: Callable[[], None]) -> None:
        """Start them all, call `on_up`, keep them running, and return when all have ended because of `stop`.

        Raises `ProcessFailed` when they did not all come up, one could not be kept running, or did not end in order.
        None of them is left."""
        await self._start_all()
        if not self._stopping.is_set():
            on_up()
        await asyncio.gather(*(self._keep(number) for number in self._children))
        if self._failure is not None:
            raise ProcessFailed(self._failure)

    def stop(self) -> None:
        """Ask all of them to stop in order."""
        self._stopping.set()
        for child in self._children.values():
            child.stop()

    def kill(self) -> None:
        """End all of them at once."""
        for child in self._children.values():
            child.kill()

    async def _start_all(self) -> None:
        first, *others = self._numbers
        if await self._comes_up(first):
            await asyncio.gather(*(self._comes_up(number) for number in others))

    async def _comes_up(self, number: int) -> bool:
        if await self._begin(number).up():
            return True
        if not self._stopping.is_set():
            self._fail(f"process {number} did not start: {await self._children[number].ended()}")
        return False

    def _begin(self, number: int) -> Child:
        child = self._children[number] = self._start(number)
        if self._stopping.is_set():  # asked for between the decision and the start
            child.stop()
        return child

    async def _keep(self, number: int) -> None:
        """Follow the process of this number, and each that takes its place."""
        short_lives, begun = 0, self._monotonic()
        while True:
            end = await self._children[number].ended()
            if self._stopping.is_set():
                return self._note_end(number, end)
            short_lives = short_lives + 1 if self._monotonic() - begun < STEADY_SECONDS else 1
            if short_lives == GIVE_UP_AFTER:
                return self._fail(
                    f"process {number} ended {short_lives} times, each time within {STEADY_SECONDS:.0f} seconds of its"
                    f" start ({end}); the others were stopped"
                )
            if await self._stopped_within(_delay(short_lives), number, end):
                return None
            begun = self._monotonic()
            self._begin(number)

    async def _stopped_within(self, seconds: float, number: int, end: End) -> bool:
        log.warning("process ended", process=number, exit_code=end.code, reason=end.reason, again_in_seconds=seconds)
        with suppress(TimeoutError):
            await self._wait(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _note_end(self, number: int, end: End) -> None:
        if not end.orderly:
            self._failure = self._failure or f"process {number} did not stop in order: {end}"

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.stop()


def _delay(short_lives: int) -> float:
    return min(FIRST_DELAY_SECONDS * 2.0 ** (short_lives - 1), LONGEST_DELAY_SECONDS)
