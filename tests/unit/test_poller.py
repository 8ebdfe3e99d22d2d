"""When the poller looks, seen on a store that only counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import cast

from hand_clock import HandClock
from observers import eventually

from jobqueue.clock import Clock, ServerClock
from jobqueue.contention import Contention
from jobqueue.dispatch import ReadyQueue
from jobqueue.job import Candidate, JobId, WorkerId
from jobqueue.poller import SIGNALLED_AT_ONCE, SIGNALLED_SECONDS, Poller
from jobqueue.repository import Features, JobRepository, Window

POLL_SECONDS = 3600.0
START = datetime(2026, 2, 2, tzinfo=UTC)


class CountingStore:
    """The test says what is found (nothing, as a rule) and signalled, and whether the queues can be asked for."""

    features = Features(name="counting", version="", change_streams=True)

    def __init__(self) -> None:
        self.looks = 0
        self.looked_into: Sequence[str] = ()
        self.heard = 0
        self.listening = False
        self.found = Window([], complete=True)
        self.signalled: asyncio.Queue[str] = asyncio.Queue()
        self.queues = {"default"}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.hold_up: Callable[[], Awaitable[None]] = self._not_at_all

    async def _not_at_all(self) -> None: ...

    async def known_queues(self) -> Sequence[str]:
        await self.may_answer.wait()
        return sorted(self.queues)

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        self.looks += 1
        self.looked_into = queues
        await self.hold_up()
        return self.found

    async def signals(self, *, on_open: Callable[[], None]) -> AsyncIterator[str]:
        self.listening = True
        on_open()
        try:
            while True:
                queue = await self.signalled.get()
                self.heard += 1
                yield queue
        finally:
            self.listening = False


class Finds:
    """How often the poller said that there may be something to claim."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def polling(
    store: CountingStore,
    *,
    queues: Sequence[str] = ("default",),
    poll_seconds: float = POLL_SECONDS,
    clock: Clock | None = None,
) -> AsyncIterator[Finds]:
    finds, clock = Finds(), clock or ServerClock()
    poller = Poller(
        cast(JobRepository, store),
        ReadyQueue(10),
        queues=queues,
        window=10,
        poll_seconds=poll_seconds,
        contention=Contention(WorkerId("worker-1"), clock),
        busy=(),
        is_saturated=lambda: False,
        on_found=finds,
        clock=clock,
        random=Random(1),
    )
    task = asyncio.create_task(poller.run())
    try:
        yield finds
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def looked(store: CountingStore, times: int) -> None:
    async def enough() -> bool:
        return store.looks >= times

    await eventually(enough, seconds=20, what=f"{times} looks")


async def listens(store: CountingStore) -> None:
    """And has looked once more since it does."""
    await looked(store, 2)
    assert store.listening


def deaf(store: CountingStore) -> Callable[[], Awaitable[bool]]:
    async def is_deaf() -> bool:
        return not store.listening

    return is_deaf


async def test_a_signal_is_followed_by_a_look() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        store.signalled.put_nowait("default")
        await looked(store, 3)


async def test_what_came_before_the_signals_could_be_heard_is_looked_for() -> None:
    store = CountingStore()
    async with polling(store):
        await looked(store, 1)

        await listens(store)


async def test_a_process_with_a_lasting_backlog_does_not_listen() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, clock=clock, poll_seconds=0.001):
        await listens(store)

        store.found = Window([Candidate(0, START, JobId("job"), "default")], complete=False)
        await looked(store, store.looks + 2)
        assert store.listening

        clock.seconds += 1
        await eventually(deaf(store), seconds=20, what="it listens no more")

        store.found = Window([], complete=True)
        await looked(store, store.looks + 3)
        assert store.listening


async def test_signals_of_queues_that_are_not_served_are_left_to_others() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        for queue in ("other", "default"):
            store.signalled.put_nowait(queue)
        await looked(store, 3)

    assert (store.heard, store.looks) == (2, 3)


async def test_constant_signals_cost_looks_in_step() -> None:
    store = CountingStore()
    clock = ServerClock()
    began = clock.monotonic()
    async with polling(store):
        while store.looks < 3 * SIGNALLED_AT_ONCE:
            store.signalled.put_nowait("default")
            await asyncio.sleep(0)
        seconds = clock.monotonic() - began

    # Two looks at the start, and one that is under way for the signals that come during it.
    assert store.looks <= 2 + SIGNALLED_AT_ONCE + seconds / SIGNALLED_SECONDS + 1
    assert store.heard > store.looks


async def test_constant_signals_leave_a_slow_store_alone_half_the_time() -> None:
    store, clock = CountingStore(), ServerClock()
    store.hold_up = lambda: asyncio.sleep(0.02)
    began = clock.monotonic()
    async with polling(store):
        while store.looks < 12:
            store.signalled.put_nowait("default")
            await asyncio.sleep(0.001)
        seconds = clock.monotonic() - began

    # All but the first two: one look at the start, and its signals are followed at once.
    assert store.looks <= 2 + seconds / (2 * 0.02)


async def test_a_look_that_was_held_up_once_does_not_hold_up_the_next() -> None:
    store, clock = CountingStore(), HandClock()

    async def hold_up() -> None:
        clock.seconds += POLL_SECONDS if store.looks == 2 else 0

    store.hold_up = hold_up
    async with polling(store, clock=clock):
        for number in (1, 2, 3):
            await looked(store, number)
            store.signalled.put_nowait("default")


async def test_no_job_waits_for_the_names_of_the_queues() -> None:
    store = CountingStore()
    async with polling(store, queues=("*",), poll_seconds=0.001) as finds:
        await looked(store, 1)

        store.may_answer.clear()
        looks = store.looks
        await looked(store, looks + 1)

    assert finds.count == looks + 1


async def test_a_queue_that_is_new_is_looked_into_at_once() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, queues=("*",), clock=clock):
        await looked(store, 1)

        store.queues.add("mail")
        clock.seconds += POLL_SECONDS
        store.signalled.put_nowait("default")
        await looked(store, 3)

    assert store.looked_into == ["default", "mail"]
