"""When the poller looks, seen on a store that only counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import cast

import pytest
from hand_clock import HandClock
from observers import eventually, settle
from simulated.loop import in_virtual_time
from structlog.testing import capture_logs
from worker_records import worker_record

from jobqueue.clock import Clock, ServerClock
from jobqueue.contention import Contention
from jobqueue.dispatch import Busy, ReadyQueue
from jobqueue.errors import Unavailable
from jobqueue.job import Candidate, Job, JobId, WorkerId
from jobqueue.listening import BACKLOG_SECONDS, CROWD_SECONDS, Listener
from jobqueue.poller import OTHERS_SECONDS, SIGNALLED_AT_ONCE, SIGNALLED_SECONDS, Poller
from jobqueue.repository import CROWD, Features, JobRepository, QueueSignal, Window, WorkerRecord

POLL_SECONDS = 3600.0
SHORT_POLL_SECONDS = 1.0
MINUTE = 60.0
SIGNAL = QueueSignal("default")
START = datetime(2026, 2, 2, tzinfo=UTC)


class CountingStore:
    """The test says what is found (nothing, as a rule) and signalled, and whether the queues can be asked for."""

    features = Features(name="counting", version="", change_streams=True)

    def __init__(self) -> None:
        self.looks = 0
        self.looked_into: Sequence[str] = ()
        self.heard = 0
        self.listening = False
        self.openings = 0
        self.found = Window([], complete=True)
        self.signalled: asyncio.Queue[QueueSignal | None] = asyncio.Queue()
        self.queues = {"default"}
        self.alive: Sequence[WorkerRecord] = ()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.hold_up: Callable[[], Awaitable[None]] = self._not_at_all

    async def _not_at_all(self) -> None: ...

    async def known_queues(self) -> Sequence[str]:
        await self.may_answer.wait()
        return sorted(self.queues)

    async def workers(self, *, since: datetime) -> Sequence[WorkerRecord]:
        return self.alive

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        self.looks += 1
        self.looked_into = queues
        await self.hold_up()
        return self.found

    async def signals(self, *, on_open: Callable[[], None]) -> AsyncGenerator[QueueSignal, None]:
        self.listening = True
        self.openings += 1
        on_open()
        try:
            while True:
                if (signal := await self.signalled.get()) is None:
                    return
                self.heard += 1
                yield signal
        finally:
            self.listening = False


class Finds:
    """How often the poller said that there may be something to claim."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Pool:
    """What the poller asks of a pool, and what the pool tells it."""

    def __init__(self) -> None:
        self.saturated = False
        self.taken: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.missed: Callable[[], None] = lambda: None


@asynccontextmanager
async def polling(
    store: CountingStore,
    *,
    queues: Sequence[str] = ("default",),
    window: int = 10,
    poll_seconds: float = POLL_SECONDS,
    clock: Clock | None = None,
    ready: ReadyQueue | None = None,
    contention: Contention | None = None,
    busy: Busy | None = None,
    pool: Pool | None = None,
) -> AsyncIterator[Finds]:
    finds, clock, pool = Finds(), clock or ServerClock(), pool or Pool()
    poller = Poller(
        cast(JobRepository, store),
        ReadyQueue(10) if ready is None else ready,
        queues=queues,
        window=window,
        poll_seconds=poll_seconds,
        contention=contention or Contention(WorkerId("worker-1"), clock),
        busy=Busy() if busy is None else busy,
        is_saturated=lambda: pool.saturated,
        on_found=finds,
        clock=clock,
        random=Random(1),
    )
    pool.taken, pool.lost, pool.missed = poller.taken, poller.lost, poller.missed
    task = asyncio.create_task(poller.run())
    try:
        yield finds
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def candidate(name: str) -> Candidate:
    return Candidate(0, START, JobId(name), "default")


async def looked(store: CountingStore, times: int) -> None:
    async def enough() -> bool:
        return store.looks >= times

    await eventually(enough, seconds=20, what=f"{times} looks")


async def eventually_at_hand(ready: ReadyQueue) -> None:
    async def is_at_hand() -> bool:
        return bool(len(ready))

    await eventually(is_at_hand, seconds=20, what="something is at hand")


async def listens(store: CountingStore) -> None:
    """And has looked once more since it does."""
    await looked(store, 2)
    assert store.listening


async def becomes(store: CountingStore, *, listening: bool) -> None:
    async def has_become() -> bool:
        return store.listening is listening

    await eventually(has_become, seconds=20, what="it listens again" if listening else "it listens no more")


async def fails() -> None:
    raise TypeError("unhashable type: 'dict'")


async def test_a_signal_is_followed_by_a_look() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)


async def test_a_look_that_meets_what_nobody_thought_of_is_not_the_last() -> None:
    store = CountingStore()
    store.hold_up = fails
    async with polling(store, poll_seconds=0.001):
        await looked(store, 3)


async def test_who_lost_to_others_forgets_what_was_at_hand_and_looks_again() -> None:
    store, ready, pool = CountingStore(), ReadyQueue(10), Pool()
    store.found = Window([candidate("theirs")], complete=True)
    async with polling(store, ready=ready, pool=pool):
        await listens(store)

        store.found = Window([candidate("new")], complete=True)
        pool.lost()
        await looked(store, 3)

    assert ready.take(10) == [candidate("new")]


async def test_what_was_not_taken_in_while_a_look_was_under_way_is_looked_for_once_more() -> None:
    store, pool = CountingStore(), Pool()

    async def miss_during_the_second() -> None:
        await asyncio.sleep(0)
        if store.looks == 2:
            pool.missed()

    store.hold_up = miss_during_the_second
    async with polling(store, pool=pool):
        await looked(store, 3)
        await settle()

    assert store.looks == 3


async def test_a_store_that_is_away_is_told_of_once_each_time() -> None:
    store = CountingStore()

    async def be_away_now_and_then() -> None:
        if store.looks in (1, 2, 4, 5):
            raise Unavailable("away")

    store.hold_up = be_away_now_and_then
    with capture_logs() as lines:
        async with polling(store, poll_seconds=0.001):
            await looked(store, 6)

    assert [line["event"] for line in lines] == ["cannot look for work"] * 2


async def test_what_cannot_be_heard_is_looked_for() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        store.signalled.put_nowait(cast(QueueSignal, "no signal"))
        await looked(store, 3)
        await settle()
        assert not store.listening


async def test_what_a_signal_names_is_at_hand_without_a_look() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with polling(store, ready=ready) as finds:
        await listens(store)
        found_before, named = finds.count, [candidate("a"), candidate("b")]

        store.signalled.put_nowait(QueueSignal("default", named))
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)

    assert finds.count == found_before + 2  # for what was named, and for the one look after it
    assert ready.take(10) == named


async def test_what_a_signal_names_is_looked_for_until_it_is_known_who_is_at_the_same_jobs() -> None:
    store, ready, contention = CountingStore(), ReadyQueue(10), Contention(WorkerId("worker-1"), ServerClock())
    async with polling(store, ready=ready, contention=contention):
        await listens(store)
        contention.observe(asked=1, won=0)

        store.signalled.put_nowait(QueueSignal("default", [candidate("a")]))
        await looked(store, 3)

    assert not ready.take(1)


@asynccontextmanager
async def in_company(
    store: CountingStore, ready: ReadyQueue, *, clock: Clock | None = None
) -> AsyncIterator[Contention]:
    """A poller that lost a claim, looked who else is there, and listens. Two workers divide what is heard of."""
    clock = clock or ServerClock()
    contention = Contention(WorkerId("worker-1"), clock)
    contention.observe(asked=1, won=0)
    store.alive = [worker_record("worker-1"), worker_record("worker-2")]
    async with polling(store, ready=ready, contention=contention, clock=clock):
        await listens(store)
        assert contention.knows_others
        yield contention


def divided(contention: Contention, *, priority: int = 0) -> tuple[list[Candidate], list[Candidate]]:
    """Some that fall to this process, and some that fall to the other."""
    some = [candidate(f"job-{number}")._replace(rank=-priority) for number in range(10)]
    left = [each for each in some if contention.is_left(each)]
    mine = sorted(set(some) - set(left))
    assert mine
    assert left
    return mine, left


async def test_of_what_is_heard_of_in_company_each_takes_its_own_without_a_look() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with in_company(store, ready) as contention:
        mine, left = divided(contention)
        looks = store.looks

        store.signalled.put_nowait(QueueSignal("default", [*mine, *left]))
        await eventually_at_hand(ready)
        assert store.looks == looks

    assert ready.take(10) == mine


async def test_who_has_gone_is_noticed_while_jobs_are_divided() -> None:
    store, ready, clock = CountingStore(), ReadyQueue(10), HandClock()
    async with in_company(store, ready, clock=clock) as contention:
        store.alive = [worker_record("worker-1")]
        clock.seconds += OTHERS_SECONDS

        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)

        assert contention.is_alone


async def test_what_was_left_to_another_is_looked_for_a_little_later() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with in_company(store, ready) as contention:
        _, left = divided(contention)
        store.found = Window(sorted(left), complete=True)

        store.signalled.put_nowait(QueueSignal("default", left))
        await eventually_at_hand(ready)
        assert ready.take(10) == sorted(left)

        # And who did not take it is busy, or gone: the next one falls to somebody else.
        assert not any(contention.is_left(each) for each in left)


async def test_who_takes_what_was_left_to_it_keeps_getting_its_part() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with in_company(store, ready) as contention:
        _, left = divided(contention)
        looks, store.found = store.looks, Window([candidate("another")], complete=True)

        store.signalled.put_nowait(QueueSignal("default", left))
        await looked(store, looks + 1)
        await settle()

        assert all(contention.is_left(each) for each in left)


async def test_what_was_left_a_moment_ago_is_not_held_against_anybody() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with in_company(store, ready, clock=HandClock()) as contention:
        _, left = divided(contention)
        looks, store.found = store.looks, Window(sorted(left), complete=True)

        store.signalled.put_nowait(QueueSignal("default", left))
        store.signalled.put_nowait(SIGNAL)  # which is looked for at once
        await looked(store, looks + 1)
        await settle()

        assert all(contention.is_left(each) for each in left)


async def test_what_is_less_urgent_than_what_was_left_is_looked_for() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with in_company(store, ready) as contention:
        (_, left), (mine, _) = divided(contention, priority=5), divided(contention)
        looks, store.found = store.looks, Window([*sorted(left), *mine], complete=True)

        store.signalled.put_nowait(QueueSignal("default", [*left, *mine]))
        await eventually_at_hand(ready)

    assert store.looks > looks
    assert ready.take(len(left)) == sorted(left)


async def test_what_was_left_is_not_forgotten_by_a_look_that_failed() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    async with in_company(store, ready) as contention:
        (_, left), (mine, _) = divided(contention, priority=5), divided(contention)
        looks, answers, store.hold_up = store.looks, store.hold_up, fails
        store.signalled.put_nowait(QueueSignal("default", left))
        await looked(store, looks + 1)
        await settle()

        store.hold_up, store.found = answers, Window([*sorted(left), *mine], complete=True)
        store.signalled.put_nowait(QueueSignal("default", mine))
        await eventually_at_hand(ready)

    assert ready.take(len(left)) == sorted(left)


async def test_what_a_signal_names_is_looked_for_when_it_may_not_be_the_next() -> None:
    store, ready = CountingStore(), ReadyQueue(1)
    async with polling(store, ready=ready):
        await listens(store)

        store.signalled.put_nowait(QueueSignal("default", [candidate("a"), candidate("b")]))
        await looked(store, 3)


async def test_the_server_is_not_asked_for_signals_before_the_look_that_the_last_one_is_followed_by() -> None:
    store, may_look = CountingStore(), asyncio.Event()
    async with polling(store):
        await listens(store)

        async def hold_up() -> None:
            await may_look.wait()

        store.hold_up = hold_up
        for _ in range(3):
            store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)
        assert store.heard == 1

        may_look.set()
        await looked(store, 5)
    assert store.heard == 3


async def test_who_has_time_again_just_when_it_gives_up_listening_listens_on() -> None:
    store, clock = CountingStore(), ServerClock()

    async def stand_still() -> None:
        await settle()  # it waits for this look
        until = clock.monotonic() + BACKLOG_SECONDS
        while clock.monotonic() < until:
            pass
        await asyncio.sleep(0)  # the look is over, and the wait for it as well

    async with polling(store, clock=clock):
        await listens(store)

        store.hold_up = stand_still
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 4)


async def test_who_has_enough_to_do_listens_again_when_that_is_taken() -> None:
    store, ready, pool = CountingStore(), ReadyQueue(10), Pool()
    async with polling(store, ready=ready, pool=pool, poll_seconds=0.01):
        await listens(store)

        pool.saturated, store.found = True, Window([candidate("a")], complete=True)
        for _ in range(100):
            store.signalled.put_nowait(SIGNAL)
        await becomes(store, listening=False)
        await looked(store, store.looks + 10)
        assert (store.heard, store.openings) == (1, 1)

        pool.saturated, store.found = False, Window([], complete=True)
        await becomes(store, listening=True)


async def test_who_has_enough_to_do_looks_once_more_when_that_is_taken() -> None:
    store, ready, pool = CountingStore(), ReadyQueue(10), Pool()
    pool.saturated, store.found = True, Window([candidate("a")], complete=True)
    async with polling(store, ready=ready, pool=pool):
        await looked(store, 1)
        await settle()

        ready.take(1)
        pool.taken()
        await looked(store, 2)


async def test_what_is_signalled_while_there_is_enough_to_do_is_looked_for_when_that_is_taken() -> None:
    store, pool = CountingStore(), Pool()
    async with polling(store, pool=pool):
        await listens(store)
        pool.saturated = True
        store.signalled.put_nowait(SIGNAL)
        await settle()
        assert (store.heard, store.looks) == (1, 2)

        pool.saturated = False
        pool.taken()
        await looked(store, 3)


async def test_a_backlog_is_gone_through_however_few_ids_are_held() -> None:
    store, ready, pool = CountingStore(), ReadyQueue(1), Pool()
    store.found = Window([candidate("a")], complete=False)
    async with polling(store, ready=ready, pool=pool, window=1):
        for number in (1, 2, 3):
            await looked(store, number)
            ready.take(1)
            pool.taken()


async def test_what_is_signalled_during_a_backlog_is_old_news_after_it() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        store.found = Window([candidate(name) for name in "abcdefgh"], complete=False)
        for _ in range(100):
            store.signalled.put_nowait(SIGNAL)
        await becomes(store, listening=False)

    assert (store.heard, store.looks) == (1, 3)


async def test_a_backlog_that_ran_low_during_a_look_and_is_long_again_after_it_is_not_looked_at_once_more() -> None:
    store, ready, pool = CountingStore(), ReadyQueue(10), Pool()

    async def take_while_it_looks() -> None:
        pool.taken()

    store.found, store.hold_up = Window([candidate(name) for name in "abcdefgh"], complete=False), take_while_it_looks
    async with polling(store, ready=ready, pool=pool):
        await looked(store, 1)
        await settle()

    assert store.looks == 1


async def test_what_was_done_with_during_a_look_is_not_taken_for_waiting() -> None:
    store, ready, busy = CountingStore(), ReadyQueue(10), Busy()
    names = ("running", "ended", "lost", "doubtful", "released", "waits")
    store.found = Window([candidate(name) for name in names], complete=True)

    async def end_some() -> None:
        busy.take(store.found.candidates[:5])
        ended = Job(id=JobId("ended"), run_at=START)
        busy.finish([ended])
        busy.leave(ended)
        busy.lose([candidate("lost")])
        busy.put_back([candidate("doubtful")])
        busy.leave(Job(id=JobId("released"), run_at=START))

    store.hold_up = end_some
    async with polling(store, ready=ready, busy=busy):
        await looked(store, 1)

    assert [each.id for each in ready.take(10)] == ["doubtful", "released", "waits"]


async def test_what_waits_again_for_another_time_is_not_passed_over() -> None:
    store, ready, busy = CountingStore(), ReadyQueue(10), Busy()
    store.found = Window([Candidate(0, START, JobId("retried"), "default")], complete=True)

    async def fail_it() -> None:
        busy.finish([Job(id=JobId("retried"), run_at=START - timedelta(seconds=1))])

    store.hold_up = fail_it
    async with polling(store, ready=ready, busy=busy):
        await looked(store, 1)

    assert [each.id for each in ready.take(10)] == ["retried"]


async def test_a_crowd_is_looked_for_and_listened_for_again() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        store.signalled.put_nowait(None)
        await looked(store, 4)  # one for the crowd, one for what came before it listened again
        await becomes(store, listening=True)

    assert store.openings == 2


async def test_after_a_crowd_more_is_looked_for_until_none_was_seen_for_a_while() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, clock=clock, poll_seconds=60):
        await listens(store)

        store.signalled.put_nowait(None)
        await looked(store, 6)
        assert store.openings == 1

        clock.seconds += CROWD_SECONDS
        await becomes(store, listening=True)


async def test_while_looks_find_crowds_it_does_not_listen() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, ready=ReadyQueue(10 * CROWD), clock=clock, poll_seconds=60):
        await listens(store)

        store.signalled.put_nowait(None)
        await looked(store, 4)
        clock.seconds += CROWD_SECONDS / 2
        store.found = Window([candidate(str(number)) for number in range(CROWD)], complete=True)
        await looked(store, store.looks + 3)
        clock.seconds += CROWD_SECONDS / 2
        await looked(store, store.looks + 3)
        assert store.openings == 1

        clock.seconds += CROWD_SECONDS / 2
        await becomes(store, listening=True)


def test_in_a_crowd_nothing_is_looked_for_while_there_are_no_slots() -> None:
    async def scene() -> None:
        store, pool = CountingStore(), Pool()
        async with polling(store, clock=HandClock(), pool=pool, poll_seconds=60):
            await listens(store)

            store.signalled.put_nowait(None)
            await looked(store, 4)
            pool.saturated = True
            await looked(store, store.looks + 1)  # whether there are slots is seen after a look
            looks = store.looks
            await asyncio.sleep(20)
            assert store.looks == looks

    in_virtual_time(scene)


async def test_after_a_crowd_that_is_a_backlog_it_does_not_listen() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        store.found = Window([candidate(name) for name in "abcdefgh"], complete=False)
        store.signalled.put_nowait(None)
        await looked(store, 3)
        await settle()

    assert store.openings == 1


async def test_what_came_before_the_signals_could_be_heard_is_looked_for() -> None:
    store = CountingStore()
    async with polling(store):
        await looked(store, 1)

        await listens(store)


async def test_a_process_with_a_lasting_backlog_does_not_listen() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, clock=clock, poll_seconds=0.001):
        await listens(store)

        store.found = Window([candidate("job")], complete=False)
        await looked(store, store.looks + 2)
        assert store.listening

        clock.seconds += BACKLOG_SECONDS
        await becomes(store, listening=False)

        store.found = Window([], complete=True)
        await looked(store, store.looks + 3)
        assert store.listening


async def test_signals_of_queues_that_are_not_served_are_left_to_others() -> None:
    store = CountingStore()
    async with polling(store):
        await listens(store)

        for queue in ("other", "default"):
            store.signalled.put_nowait(QueueSignal(queue))
        await looked(store, 3)

    assert (store.heard, store.looks) == (2, 3)


async def test_constant_signals_cost_looks_in_step() -> None:
    store = CountingStore()
    clock = ServerClock()
    began = clock.monotonic()
    async with polling(store):
        while store.looks < 3 * SIGNALLED_AT_ONCE:
            store.signalled.put_nowait(SIGNAL)
            await asyncio.sleep(0)
        seconds = clock.monotonic() - began

    # Two looks at the start, and one that is under way for the signals that come during it.
    assert store.looks <= 2 + SIGNALLED_AT_ONCE + seconds / SIGNALLED_SECONDS + 1


async def test_constant_signals_leave_a_slow_store_alone_half_the_time() -> None:
    store, clock = CountingStore(), ServerClock()
    store.hold_up = lambda: asyncio.sleep(0.02)
    began = clock.monotonic()
    async with polling(store):
        while store.looks < 12:
            store.signalled.put_nowait(SIGNAL)
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
            store.signalled.put_nowait(SIGNAL)


async def test_what_stands_behind_what_was_forgotten_meanwhile_is_not_taken_for_the_head() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    at_hand: list[int] = []
    store.found = Window([candidate("a")], complete=False)

    async def forget_during_the_second() -> None:
        at_hand.append(len(ready))
        if store.looks == 2:
            ready.clear()
            store.found = Window([candidate("b")], complete=True)

    store.hold_up = forget_during_the_second
    async with polling(store, ready=ready):
        await looked(store, 3)

    # Nothing, then "a", then nothing again: "b" stands behind it.
    assert at_hand[:3] == [0, 1, 0]


async def test_no_job_waits_for_the_names_of_the_queues() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, queues=("*",), clock=clock) as finds:
        await listens(store)

        store.may_answer.clear()
        clock.seconds += POLL_SECONDS * 0.75
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)
        await asyncio.sleep(0)

    assert finds.count == 3


async def test_whoever_serves_every_queue_hears_of_the_first_job_of_all() -> None:
    store, ready = CountingStore(), ReadyQueue(10)
    store.queues = set()
    async with polling(store, ready=ready, queues=("*",)):
        await becomes(store, listening=True)

        store.signalled.put_nowait(QueueSignal("mail", [candidate("first")]))
        await eventually_at_hand(ready)
        store.signalled.put_nowait(QueueSignal("mail"))
        await looked(store, 1)

    assert store.looked_into == ["mail"]


async def test_a_queue_that_is_new_is_looked_into_at_once() -> None:
    store, clock = CountingStore(), HandClock()
    async with polling(store, queues=("*",), clock=clock):
        await listens(store)

        store.queues.add("mail")
        clock.seconds += POLL_SECONDS * 0.75
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 4)

    assert store.looked_into == ["default", "mail"]


async def test_a_queue_that_was_forgotten_is_not_looked_into() -> None:
    store, clock = CountingStore(), HandClock()
    store.queues.add("gone")
    async with polling(store, queues=("*",), clock=clock):
        await listens(store)
        assert store.looked_into == ["default", "gone"]

        store.queues.remove("gone")
        clock.seconds += POLL_SECONDS
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)

    assert store.looked_into == ["default"]


async def test_what_is_new_in_a_queue_that_is_new_is_not_passed_over_for_longer_than_a_look_may_be_old() -> None:
    store, clock = CountingStore(), HandClock()
    looked_into: list[Sequence[str]] = []

    async def note() -> None:
        looked_into.append(store.looked_into)

    store.hold_up = note
    async with polling(store, queues=("*",), clock=clock):
        await listens(store)

        store.queues.add("mail")
        clock.seconds += POLL_SECONDS  # nobody looked meanwhile: the store was away, or the process stood still
        store.signalled.put_nowait(SIGNAL)
        await looked(store, 3)

    assert looked_into[2] == ["default", "mail"]


class Backlog(CountingStore):
    """There is always more than was found. It notes when the head was looked at, and when another place."""

    def __init__(self, *, look_seconds: float = 0.0) -> None:
        super().__init__()
        self.found = Window([candidate(name) for name in "abcdefghij"], complete=False)
        self.heads: list[float] = []
        self.others: list[float] = []
        self.is_away = False
        self._look_seconds = look_seconds

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        (self.heads if after is None else self.others).append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._look_seconds)
        if self.is_away:
            raise Unavailable("away")
        return await super().candidates(queues, after=after, limit=limit)


def virtual_clock() -> ServerClock:
    return ServerClock(monotonic=asyncio.get_running_loop().time)


@pytest.mark.parametrize("look_seconds", [0.0, 0.03])
@pytest.mark.parametrize("taken_every", [MINUTE, 0.7, 0.3, 0.04], ids=lambda seconds: f"taken every {seconds} s")
def test_the_head_of_a_backlog_is_never_older_than_that(taken_every: float, look_seconds: float) -> None:
    async def scene() -> None:
        store, ready, pool = Backlog(look_seconds=look_seconds), ReadyQueue(10), Pool()
        async with polling(store, ready=ready, pool=pool, poll_seconds=SHORT_POLL_SECONDS, clock=virtual_clock()):
            for _ in range(int(MINUTE / taken_every)):
                await asyncio.sleep(taken_every)
                ready.take(9)
                pool.taken()

        # A look elsewhere may be under way then, and a rest as long as that follows it.
        oldest = max(later - earlier for earlier, later in pairwise(store.heads))
        assert round(oldest, 6) <= SHORT_POLL_SECONDS + 2 * look_seconds

    in_virtual_time(scene)


def test_a_look_at_the_head_that_failed_is_made_up_for_by_the_next_one() -> None:
    async def scene() -> None:
        store, ready, pool = Backlog(), ReadyQueue(10), Pool()
        async with polling(store, ready=ready, pool=pool, poll_seconds=SHORT_POLL_SECONDS, clock=virtual_clock()):
            await asyncio.sleep(SHORT_POLL_SECONDS / 2)
            store.is_away = True
            await asyncio.sleep(SHORT_POLL_SECONDS)
            store.is_away, looked_elsewhere = False, len(store.others)
            assert len(store.heads) == 2

            ready.take(9)
            pool.taken()
            await asyncio.sleep(SHORT_POLL_SECONDS / 4)

        assert (len(store.heads), len(store.others)) == (3, looked_elsewhere)

    in_virtual_time(scene)


def test_a_store_that_went_away_after_a_crowd_is_not_asked_more_often_than_any_other() -> None:
    async def scene() -> None:
        store = Backlog()
        store.found = Window([candidate(f"job-{number:02}") for number in range(CROWD)], complete=True)
        async with polling(store, ready=ReadyQueue(CROWD), poll_seconds=SHORT_POLL_SECONDS, clock=virtual_clock()):
            await settle()
            store.is_away, before = True, len(store.heads)
            assert before
            await asyncio.sleep(MINUTE)

        # The first few still follow the crowd; with the longest jitter there are ten pauses in nine polls.
        assert len(store.heads) - before <= MINUTE / SHORT_POLL_SECONDS * 10 / 9 + 10

    in_virtual_time(scene)


class Refusing(CountingStore):
    """Has no change stream for this process."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = True

    async def signals(self, *, on_open: Callable[[], None]) -> AsyncGenerator[QueueSignal, None]:
        self.openings += 1
        if not self.refuses:
            on_open()
            await asyncio.sleep(1)
        raise Unavailable("not allowed")
        yield SIGNAL


def test_a_change_stream_that_is_refused_again_and_again_is_told_of_once() -> None:
    async def scene() -> None:
        store = Refusing()
        with capture_logs() as lines:
            async with polling(store, clock=virtual_clock()):
                await asyncio.sleep(MINUTE)
                assert store.openings >= 3
                assert [line["event"] for line in lines] == ["no change stream; polling goes on"]

                store.refuses = False
                await asyncio.sleep(MINUTE)
        assert len(lines) >= 2, "one that broke is another matter"

    in_virtual_time(scene)


async def test_a_crowd_does_not_end_between_not_listening_and_not_looking_either() -> None:
    clock = HandClock()
    listener = Listener(
        cast(JobRepository, CountingStore()),
        serves=lambda queue: True,
        on_signal=lambda signal: None,
        on_gap=lambda: None,
        clock=clock,
        random=Random(1),
    )
    listener.saw(CROWD)
    clock.seconds += 0.9 * CROWD_SECONDS
    listener.saw(0)

    async with asyncio.TaskGroup() as group:
        listener.attend(group)
        clock.seconds += CROWD_SECONDS

        assert listener.leaves_a_crowd_to_looks

        listener.saw(0)

        assert not listener.leaves_a_crowd_to_looks
