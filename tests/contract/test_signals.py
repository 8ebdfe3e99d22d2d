"""Being woken: what one process stores or signals, others hear, and nothing of it is relied on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from bench import NOW, SECOND, Bench

from jobqueue.job import Candidate, JobId, Status
from jobqueue.mongo import changes
from jobqueue.mongo.changes import MOST_BYTES
from jobqueue.mongo.wakeups import MOST_TOLD
from jobqueue.repository import CROWD, QueueSignal


@pytest.fixture(autouse=True)
def _questions_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test ends by closing its stream, which waits for the question that is under way."""
    monkeypatch.setattr(changes, "AWAIT_MILLISECONDS", 100)


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[Callable[[int], Awaitable[list[QueueSignal]]]]:
    """Waits for so many signals, and returns them, sorted by queue. These queues are known already."""
    for queue in ("default", "mail", "sms"):
        await bench.add(queue=queue)
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


async def test_a_job_tells_of_itself_when_it_is_stored(bench: Bench) -> None:
    async with listening(bench) as hear:
        urgent = await bench.add(queue="mail", priority=7)
        assert await hear(1) == [QueueSignal("mail", [Candidate.of(urgent)])]

        some = [bench.new(queue=queue) for queue in ("mail", "sms") for _ in range(CROWD // 2 - 1)]
        await bench.jobs.insert_many(some)
        heard: list[Candidate] = []
        while len(heard) < len(some):
            [(_, candidates)] = await hear(1)
            heard += candidates or []
        assert sorted(heard) == sorted(Candidate.of(job) for job in some)


async def test_a_crowd_ends_the_stream(bench: Bench) -> None:
    opened = asyncio.Event()

    async def listen() -> int:
        return len([signal async for signal in bench.jobs.signals(on_open=opened.set)])

    await bench.add()
    listening = asyncio.create_task(listen())
    await asyncio.wait_for(opened.wait(), 20)
    await bench.add_many(3 * CROWD)

    assert await asyncio.wait_for(listening, 20) == 0


async def test_jobs_that_are_not_due_or_are_stored_beside_workers_are_not_heard_of(bench: Bench) -> None:
    async with listening(bench) as hear:
        await bench.add(status=Status.SCHEDULED, run_at=NOW + SECOND)
        await bench.add(insert_id=bench.ids.insert_id(near=True))
        await bench.claim(near := await bench.add(insert_id=bench.ids.insert_id(near=True)))
        await bench.raw.update_one({"_id": near.id}, {"$set": {"status": "pending"}})
        last = await bench.add()
        assert await hear(1) == [QueueSignal("default", [Candidate.of(last)])]


async def test_a_job_that_was_made_by_hand_is_heard_of_once_it_can_be_understood(bench: Bench) -> None:
    async with listening(bench) as hear:
        await bench.put(_id="typed", status="pending", queue="mail")
        await bench.put(_id="complete", status="pending", queue="mail", priority=3.0, runAt=NOW)
        assert await hear(1) == [QueueSignal("mail", [Candidate(-3, NOW, JobId("complete"), "mail")])]


async def test_a_large_job_is_heard_of_and_claimed_whole(bench: Bench) -> None:
    payload = {"text": "x" * MOST_BYTES}
    async with listening(bench) as hear:
        job = await bench.add(payload=payload)
        assert await hear(1) == [QueueSignal("default", [Candidate.of(job)])]

        won = await bench.jobs.claim([job.id], bench.lease(), at=NOW)
        assert [each.payload for each in won.jobs] == [payload]


async def test_what_was_heard_of_is_claimed_as_if_it_had_been_read(bench: Bench) -> None:
    async with listening(bench) as hear:
        job = await bench.add(payload={"$ref": "x", "$id": 1, "deep": [{"a.b": None}]}, tags=["t"], timeout_seconds=2.5)
        await hear(1)

        won = await bench.jobs.claim([job.id], bench.lease(), at=NOW + SECOND)
        assert list(won.jobs) == [await bench.jobs.get(job.id)]
