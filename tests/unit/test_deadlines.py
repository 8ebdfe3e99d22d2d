"""Deadlines are kept whatever their order, with one timer for each length of time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue.deadlines import MOST_IDLE, Deadlines

SOON = 0.01
FAR = 3600.0
PATIENCE = 30


class Told:
    """What was told, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._came = asyncio.Event()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self._came.set()

    async def first(self, count: int) -> list[str]:
        """Return when so many were told."""
        async with asyncio.timeout(PATIENCE):
            while len(self.names) < count:
                self._came.clear()
                await self._came.wait()
        return self.names


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """Every timer that is set."""
    loop = asyncio.get_running_loop()
    made: list[asyncio.TimerHandle] = []
    call_at: Callable[..., asyncio.TimerHandle] = loop.call_at

    def noting(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        made.append(call_at(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(loop, "call_at", noting)
    return made


async def test_what_has_not_ended_within_its_time_is_told_once_and_in_order() -> None:
    told = Told()
    deadlines = Deadlines[str](told)

    for name, seconds in [("far", FAR), ("second", 3 * SOON), ("first", SOON), ("ended", SOON), ("third", 3 * SOON)]:
        deadlines.begin(name, seconds)
    deadlines.end("ended", SOON)

    assert await told.first(3) == ["first", "second", "third"]
    deadlines.end("first", SOON)
    deadlines.close()


async def test_nothing_is_told_before_its_time_by_the_timer_of_what_ended() -> None:
    told, loop = Told(), asyncio.get_running_loop()
    deadlines = Deadlines[str](told)
    deadlines.begin("ended", 3 * SOON)
    deadlines.begin("meanwhile", SOON)
    await told.first(1)
    deadlines.end("ended", 3 * SOON)

    begun = loop.time()
    deadlines.begin("mine", 3 * SOON)
    await told.first(2)

    assert told.names == ["meanwhile", "mine"]
    assert loop.time() - begun >= 3 * SOON


async def test_many_that_have_equally_long_share_a_timer(timers: list[asyncio.TimerHandle]) -> None:
    deadlines = Deadlines[int](lambda number: None)

    for number in range(1000):
        deadlines.begin(number, FAR)
        deadlines.end(number, FAR)

    assert len(timers) == 1
    deadlines.close()
    assert timers[0].cancelled()


async def test_lengths_of_time_that_clients_make_up_leave_no_timers_behind(
    timers: list[asyncio.TimerHandle],
) -> None:
    deadlines = Deadlines[int](lambda number: None)

    for number in range(1000):
        deadlines.begin(number, FAR + number)
        deadlines.end(number, FAR + number)

    assert sum(not timer.cancelled() for timer in timers) <= MOST_IDLE
    deadlines.close()


async def test_many_that_are_over_together_may_all_end_afterwards() -> None:
    """By then their line may be gone, as it has nothing in it and there are many others."""
    told = Told()
    deadlines = Deadlines[str](told)
    for number in range(MOST_IDLE + 1):
        deadlines.begin("other", FAR + number)
    for name in ("first", "second"):
        deadlines.begin(name, SOON)
    await told.first(2)

    for name in ("first", "second"):
        deadlines.end(name, SOON)

    deadlines.begin("later", SOON)
    assert await told.first(3) == ["first", "second", "later"]
    deadlines.close()


async def test_what_is_told_may_end_others_of_the_same_time() -> None:
    told = Told()

    def end_the_other(name: str) -> None:
        told(name)
        deadlines.end("second", SOON)

    deadlines = Deadlines[str](end_the_other)
    for name in ("first", "second", "third"):
        deadlines.begin(name, SOON)

    assert await told.first(2) == ["first", "third"]
    deadlines.close()
