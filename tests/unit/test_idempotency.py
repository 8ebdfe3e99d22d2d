"""Who comes first with a key, and what a request is."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from counted_calls import calls_until
from observers import settle

from jobqueue.errors import JobQueueError, KeyInUse, Unavailable
from jobqueue.idempotency import WAIT_SECONDS, Enqueued, FirstRequests, fingerprint_of
from jobqueue.job import Job, JobId
from jobqueue.service import NewJob


class Store:
    """Answers when it is told to, with a job or with an error."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = asyncio.Event()
        self.answer: asyncio.Future[Enqueued] = asyncio.get_running_loop().create_future()

    async def enqueue(self) -> Enqueued:
        self.calls += 1
        self.called.set()
        return await asyncio.shield(self.answer)


async def test_who_comes_second_waits_and_shares_the_answer_of_the_first() -> None:
    requests, store = FirstRequests(), Store()
    first = asyncio.create_task(requests.run("k", store.enqueue))
    await store.called.wait()
    second = asyncio.create_task(requests.run("k", store.enqueue))
    job = Job(id=JobId("j"))

    store.answer.set_result(Enqueued(job))

    assert (await first, await second) == (Enqueued(job), Enqueued(job, replayed=True))
    assert store.calls == 1


async def test_another_key_does_not_wait() -> None:
    requests, store, other = FirstRequests(), Store(), Store()
    waiting = asyncio.create_task(requests.run("k", store.enqueue))
    await store.called.wait()
    other.answer.set_result(Enqueued(Job(id=JobId("j"))))

    assert not (await requests.run("another", other.enqueue)).replayed

    waiting.cancel()


async def test_nobody_waits_for_longer_than_five_seconds() -> None:
    requests, store = FirstRequests(wait_seconds=0), Store()
    first = asyncio.create_task(requests.run("k", store.enqueue))
    await store.called.wait()

    with pytest.raises(KeyInUse):
        await requests.run("k", store.enqueue)

    assert WAIT_SECONDS == 5
    store.answer.set_result(Enqueued(Job(id=JobId("j"))))
    assert not (await first).replayed


@pytest.mark.parametrize("ending", ["refused", "cancelled"])
async def test_when_the_first_one_fails_the_next_one_is_the_first(ending: str) -> None:
    requests, broken, store = FirstRequests(), Store(), Store()
    first = asyncio.create_task(requests.run("k", broken.enqueue))
    await broken.called.wait()
    next_ones = [asyncio.create_task(requests.run("k", store.enqueue)) for _ in range(3)]
    await asyncio.sleep(0)  # they begin to wait

    if ending == "refused":
        broken.answer.set_exception(Unavailable("away"))
    else:
        first.cancel()

    with pytest.raises((JobQueueError, asyncio.CancelledError)):
        await first
    await store.called.wait()
    store.answer.set_result(Enqueued(Job(id=JobId("j"))))
    assert sorted([(await each).replayed for each in next_ones]) == [False, True, True]
    assert store.calls == 1


async def test_who_comes_after_the_answer_asks_anew_though_others_have_still_to_be_told() -> None:
    requests, store, other = FirstRequests(), Store(), Store()
    other.answer.set_result(Enqueued(Job(id=JobId("another"))))

    async def twice() -> Enqueued:
        await requests.run("k", store.enqueue)
        return await requests.run("k", other.enqueue)

    both = asyncio.create_task(twice())
    await store.called.wait()
    waiting = asyncio.create_task(requests.run("k", store.enqueue))
    await asyncio.sleep(0)

    store.answer.set_result(Enqueued(Job(id=JobId("j"))))

    assert (await both).job.id == "another"
    assert (await waiting).job.id == "j"


class Key(str):
    """One that is seen to be forgotten."""


async def accept() -> Enqueued:
    return Enqueued(Job(id=JobId("j")))


async def refuse() -> Enqueued:
    await asyncio.sleep(0)
    raise Unavailable("away")


@pytest.mark.parametrize("enqueue", [accept, refuse])
async def test_nothing_is_kept_of_a_key_once_its_requests_are_answered(
    enqueue: Callable[[], Awaitable[Enqueued]],
) -> None:
    requests, key = FirstRequests(), Key("k")
    kept = weakref.ref(key)

    await asyncio.gather(*(requests.run(key, enqueue) for _ in range(2)), return_exceptions=True)

    del key
    await settle()
    gc.collect()
    assert kept() is None


async def test_a_failure_makes_work_for_the_next_one_only_however_many_wait() -> None:
    async def refuse_all(number: int) -> None:
        requests = FirstRequests()
        answers = await asyncio.gather(*(requests.run("k", refuse) for _ in range(number)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * number

    few, many = await calls_until(refuse_all(100)), await calls_until(refuse_all(200))

    assert many < 3 * few  # twice as many; four times where each failure is told to all


DIFFERENT: list[dict[str, Any]] = [
    {"type": "b"},
    {"payload": [1]},
    {"payload": {"a": 1.0}},
    {"payload": {"a": True}},
    {"payload": {"a": "1"}},
    {"queue": "q"},
    {"priority": 1},
    {"id": "x"},
    {"tags": ["t"]},
    {"delay_seconds": 1},
    {"max_retries": 3},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=str)
def test_requests_that_ask_for_something_else_have_other_fingerprints(change: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"type": "a", "payload": {"a": 1}}

    assert NewJob(**asked | change).fingerprint != NewJob(**asked).fingerprint


def test_neither_the_key_nor_the_order_of_fields_nor_a_trace_is_part_of_the_fingerprint() -> None:
    one = NewJob(payload={"a": 1, "b": 2}, idempotency_key="k", traceparent="t", tags=())
    other = NewJob(payload={"b": 2, "a": 1})

    assert one.fingerprint == other.fingerprint


def test_what_is_as_by_default_is_not_part_of_the_fingerprint() -> None:
    """Or a field that a later version adds would make other requests of those that were sent before."""
    assert NewJob(type="email", queue="default", priority=0).fingerprint == fingerprint_of({"type": "email"})
