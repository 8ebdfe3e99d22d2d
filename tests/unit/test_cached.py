"""Answers that are kept: asked for once, told to all who wait, also when there is none."""

from __future__ import annotations

import asyncio

import pytest
from hand_clock import HandClock

from jobqueue.errors import Unavailable
from jobqueue.mongo.cached import CACHE_FACTOR, CACHE_SECONDS, Cached


class Asked:
    """Answers with how often it was asked, when it may; asking takes as long as it is told to."""

    def __init__(self) -> None:
        self.clock, self.took, self.times = HandClock(), 0.0, 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.times += 1
        await self.may_answer.wait()
        self.clock.seconds += self.took
        if self.error is not None:
            raise self.error
        return self.times


async def test_an_answer_is_kept_for_a_second() -> None:
    asked = Asked()
    cached = Cached(asked, asked.clock)

    assert [await cached.get() for _ in range(3)] == [1, 1, 1]
    asked.clock.seconds += CACHE_SECONDS
    assert await cached.get() == 2


async def test_what_takes_long_to_find_out_is_kept_longer() -> None:
    asked = Asked()
    asked.took = 1.0
    cached = Cached(asked, asked.clock)
    await cached.get()

    asked.clock.seconds += CACHE_FACTOR - 0.1
    assert await cached.get() == 1
    asked.clock.seconds += 0.1
    assert await cached.get() == 2


async def test_all_who_wait_are_told_of_one_failure_and_the_next_asks_again() -> None:
    asked = Asked()
    asked.error = Unavailable("no answer")
    cached = Cached(asked, asked.clock)

    told = await asyncio.gather(*(cached.get() for _ in range(5)), return_exceptions=True)

    assert told == [asked.error] * 5
    assert asked.times == 1
    asked.error = None
    assert await cached.get() == 2


async def test_whoever_asked_may_go_and_the_others_are_told() -> None:
    asked = Asked()
    asked.may_answer.clear()
    cached = Cached(asked, asked.clock)
    first, second = (asyncio.create_task(cached.get()) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    asked.may_answer.set()

    assert await second == 1
