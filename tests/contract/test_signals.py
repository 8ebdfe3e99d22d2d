"""Signals: what one process writes, others hear, and no signal is relied on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from bench import NOW, Bench

from jobqueue.job import Candidate, JobId
from jobqueue.mongo.wakeups import MOST_TOLD
from jobqueue.repository import QueueSignal


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[Callable[[int], Awaitable[list[QueueSignal]]]]:
    """Waits for so many signals, and returns them, sorted by queue."""
    opened, heard = asyncio.Event(), asyncio.Queue[QueueSignal]()

    async def listen() -> None:
        async for signal in bench.jobs.signals(on_open=opened.set):
            heard.put_nowait(signal)

    async def hear(count: int) -> list[QueueSignal]:
        return sorted([await asyncio.wait_for(heard.get(), 20) for _ in range(count)], key=lambda each: each.queue)

    task = asyncio.create_task(listen())
    await asyncio.wait_for(opened.wait(), 20)
    try:
        yield hear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def waiting(queue: str, count: int) -> list[Candidate]:
    return [Candidate(-5, NOW, JobId(f"{queue}-{number}"), queue) for number in range(count)]


async def test_a_signal_reaches_other_processes_and_says_what_waits(bench: Bench) -> None:
    mail, sms = waiting("mail", 2), waiting("sms", 1)
    async with listening(bench) as hear:
        bench.jobs.signal([*mail, *sms], at=NOW)
        assert await hear(2) == [QueueSignal("mail", mail), QueueSignal("sms", sms)]

        later = waiting("mail", 1)
        bench.jobs.signal(later, at=NOW)
        assert await hear(1) == [QueueSignal("mail", later)]


async def test_a_signal_of_many_jobs_names_none_of_them(bench: Bench) -> None:
    async with listening(bench) as hear:
        for count in (MOST_TOLD + 1, 1, MOST_TOLD + 1):
            bench.jobs.signal(waiting("mail", count), at=NOW)
            [(_, candidates)] = await hear(1)
            assert candidates == (None if count > MOST_TOLD else waiting("mail", count))


@pytest.mark.parametrize("jobs", [None, 5, ["a"], [{"_id": "a"}], [{"_id": 1, "priority": 0, "runAt": NOW}], {"a": 1}])
async def test_a_signal_that_cannot_be_understood_names_no_jobs(bench: Bench, jobs: object) -> None:
    async with listening(bench) as hear:
        signals = bench.raw.database.signals
        await signals.update_one({"_id": "mail"}, {"$set": {"jobs": jobs}, "$inc": {"n": 1}}, upsert=True)

        assert await hear(1) == [QueueSignal("mail")]
