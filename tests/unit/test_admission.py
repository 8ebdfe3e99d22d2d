"""How much is let in: depth, rate, and requests that are let in whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import cast

import pytest
from hand_clock import START, HandClock
from memory_jobs import MemoryJobs
from observers import eventually, settle
from structlog.testing import capture_logs

from jobqueue.admission import MAX_QUEUES_WATCHED, Admission, AdmissionLimits
from jobqueue.depth import BELIEVED_SECONDS, COUNT_FACTOR, Depth
from jobqueue.errors import DuplicateJob, OutcomeUnknown, QueueFull, RateLimited, Unavailable
from jobqueue.job import Job, JobId
from jobqueue.rate_limit import ADVANCES_A_SECOND, METER, SECOND, RateLimit, draw
from jobqueue.repository import JobRepository


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def jobs() -> MemoryJobs:
    return MemoryJobs()


def port(jobs: MemoryJobs) -> JobRepository:
    return cast(JobRepository, jobs)


class Counted:
    """What waits, as the store would count it; counting takes as long as it is told to."""

    def __init__(self, clock: HandClock, waiting: int = 0) -> None:
        self.clock, self.waiting, self.took, self.times = clock, waiting, 0.0, 0
        self.hold: asyncio.Event | None = None
        self.began = asyncio.Event()

    async def __call__(self, depths: Sequence[Depth]) -> Sequence[int]:
        self.times += 1
        self.began.set()
        found = [min(depth.limit, self.waiting) for depth in depths]
        if self.hold is not None:
            await self.hold.wait()
        self.clock.seconds += self.took
        return found

    def depth(self, limit: int) -> Depth:
        return Depth(None, limit=limit, clock=self.clock)

    async def refresh(self, *depths: Depth) -> None:
        await Depth.refresh(depths, self)


# Depth


async def test_there_is_room_up_to_the_limit_and_not_one_more(clock: HandClock) -> None:
    counted = Counted(clock, waiting=7)
    depth = counted.depth(10)
    await counted.refresh(depth)

    depth.let_in(3)

    with pytest.raises(QueueFull, match="10 jobs wait in all"):
        depth.let_in(1)


async def test_who_is_refused_several_is_told_how_many_there_are_and_how_many_would_come(clock: HandClock) -> None:
    counted = Counted(clock, waiting=20)
    depth = counted.depth(30)
    await counted.refresh(depth)

    with pytest.raises(QueueFull, match=r"^20 jobs wait in all, and no more than 30 may; 21 more are wanted$"):
        depth.let_in(21)


async def test_it_is_counted_once_a_second_however_many_ask(clock: HandClock) -> None:
    counted = Counted(clock, waiting=10)
    depth = counted.depth(10)

    for _ in range(100):
        await counted.refresh(depth)
        with pytest.raises(QueueFull):
            depth.let_in(1)
    assert counted.times == 1

    clock.seconds, counted.waiting = 1.0, 9
    await counted.refresh(depth)
    depth.let_in(1)
    assert counted.times == 2


async def test_refusals_are_logged_once_for_each_count(clock: HandClock) -> None:
    counted = Counted(clock, waiting=10)
    depth = counted.depth(10)

    with capture_logs() as logs:
        for seconds in (0, 1):
            clock.seconds = seconds
            await counted.refresh(depth)
            for _ in range(10):
                with pytest.raises(QueueFull):
                    depth.let_in(1)

    assert [(line["event"], line["limit"]) for line in logs] == [("jobs refused, too many wait", 10)] * 2


async def test_counting_that_is_slow_is_done_less_often(clock: HandClock) -> None:
    counted = Counted(clock, waiting=10)
    counted.took = 2.0
    depth = counted.depth(10)
    await counted.refresh(depth)

    with pytest.raises(QueueFull) as refused:
        depth.let_in(1)

    assert refused.value.retry_after_seconds == 2 * COUNT_FACTOR


async def test_many_who_come_at_once_are_counted_for_together(clock: HandClock) -> None:
    counted = Counted(clock)
    depth = counted.depth(10)

    await asyncio.gather(*(counted.refresh(depth) for _ in range(50)))

    assert counted.times == 1


async def test_nobody_waits_for_a_new_count_but_who_began_it(clock: HandClock) -> None:
    counted = Counted(clock, waiting=6)
    depth = counted.depth(10)
    await counted.refresh(depth)
    clock.seconds, counted.hold, counted.began = 5.0, asyncio.Event(), asyncio.Event()
    beginner = asyncio.create_task(counted.refresh(depth))
    await counted.began.wait()

    await counted.refresh(depth)

    assert not beginner.done()
    counted.hold.set()
    await beginner


async def test_nobody_waits_for_a_new_count_while_there_is_plenty_of_room(clock: HandClock) -> None:
    counted = Counted(clock, waiting=3)
    depth = counted.depth(10)
    await counted.refresh(depth)
    depth.let_in(2)
    clock.seconds, counted.waiting, counted.hold, counted.began = 1.0, 9, asyncio.Event(), asyncio.Event()

    await counted.refresh(depth)
    await counted.began.wait()
    assert not await full(depth)
    counted.hold.set()
    await eventually(lambda: full(depth), seconds=20, what="the new count is there")


async def test_there_is_no_plenty_of_room_where_much_was_let_in_since(clock: HandClock) -> None:
    counted = Counted(clock, waiting=0)
    depth = counted.depth(10)
    await counted.refresh(depth)
    depth.let_in(6)
    clock.seconds, counted.hold = 1.0, asyncio.Event()

    waiting = asyncio.create_task(counted.refresh(depth))
    await settle()

    assert not waiting.done()
    counted.hold.set()
    await waiting


async def test_a_count_of_some_time_ago_is_not_believed_however_much_room_it_saw(clock: HandClock) -> None:
    counted = Counted(clock, waiting=3)
    depth = counted.depth(10)
    await counted.refresh(depth)
    clock.seconds, counted.waiting = BELIEVED_SECONDS, 10

    await counted.refresh(depth)

    with pytest.raises(QueueFull):
        depth.let_in(1)


async def full(depth: Depth) -> bool:
    try:
        depth.let_in(1)
    except QueueFull:
        return True
    depth.settle(1, not_stored=1)
    return False


async def test_what_is_let_in_while_it_is_counted_is_not_forgotten(clock: HandClock) -> None:
    """Nor what was on its way into the store when the count began: the count may not have seen it."""
    counted = Counted(clock, waiting=2)
    depth = counted.depth(10)
    await counted.refresh(depth)
    depth.let_in(4)
    clock.seconds, counted.hold, counted.began = 5.0, asyncio.Event(), asyncio.Event()
    counting = asyncio.create_task(counted.refresh(depth))
    await counted.began.wait()
    depth.let_in(3)
    depth.settle(4, not_stored=0)

    counted.hold.set()
    await counting

    depth.let_in(1)
    with pytest.raises(QueueFull):
        depth.let_in(1)


async def test_what_was_stored_and_waits_no_more_leaves_its_room_with_the_next_count(clock: HandClock) -> None:
    counted = Counted(clock, waiting=0)
    depth = counted.depth(10)

    for _ in range(3):
        clock.seconds += 1.0
        await counted.refresh(depth)
        depth.let_in(10)
        depth.settle(10, not_stored=0)


async def test_what_turned_out_not_to_be_stored_leaves_its_room(clock: HandClock) -> None:
    counted = Counted(clock)
    depth = counted.depth(2)
    await counted.refresh(depth)
    depth.let_in(2)

    depth.settle(2, not_stored=1)

    depth.let_in(1)
    with pytest.raises(QueueFull):
        depth.let_in(1)


async def test_random_traffic_of_one_process_never_goes_beyond_the_limit(clock: HandClock) -> None:
    random, counted = Random(7), Counted(clock)
    depth, under_way = counted.depth(20), 0
    for _ in range(5_000):
        clock.seconds += random.choice([0, 0, 0.3])
        counted.waiting = max(0, counted.waiting - random.randrange(3))
        await counted.refresh(depth)
        wanted = random.randrange(1, 6)
        try:
            depth.let_in(wanted)
            under_way += wanted
        except QueueFull:
            pass
        landing = random.randrange(under_way + 1)
        lost = random.randrange(landing + 1)
        depth.settle(landing, not_stored=lost)
        under_way -= landing
        counted.waiting += landing - lost
        assert counted.waiting + under_way <= 20


async def test_a_count_that_fails_is_told_to_all_who_need_it_and_tried_again(clock: HandClock) -> None:
    calls = 0

    async def count(depths: Sequence[Depth]) -> Sequence[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("away")
        return [0]

    depth = Depth(None, limit=1, clock=clock)

    refused = await asyncio.gather(*(Depth.refresh([depth], count) for _ in range(5)), return_exceptions=True)
    await Depth.refresh([depth], count)

    assert [type(each) for each in refused] == [Unavailable] * 5
    assert calls == 2


async def test_who_gives_up_waiting_for_a_count_takes_it_from_nobody(clock: HandClock) -> None:
    counted = Counted(clock, waiting=10)
    counted.hold = asyncio.Event()
    depth = counted.depth(10)
    first = asyncio.create_task(counted.refresh(depth))
    await counted.began.wait()
    second = asyncio.create_task(counted.refresh(depth))
    await settle()

    first.cancel()
    await settle()
    counted.hold.set()

    await second
    assert counted.times == 1


async def test_several_places_are_counted_at_once_and_those_that_are_due(clock: HandClock) -> None:
    counted = Counted(clock, waiting=2)
    depths = [counted.depth(limit) for limit in (1, 2, 3)]
    await counted.refresh(depths[0])
    clock.seconds = 0.5

    await counted.refresh(*depths)

    assert counted.times == 2
    assert [await full(depth) for depth in depths] == [True, True, False]
    clock.seconds = 1.0
    await counted.refresh(*depths)
    assert counted.times == 3
    assert [depth.is_old for depth in depths] == [False] * 3


async def test_of_several_places_the_count_of_one_that_somebody_else_began_is_waited_for(clock: HandClock) -> None:
    counted, other = Counted(clock), Counted(clock, waiting=1)
    first, second = counted.depth(1), counted.depth(1)
    other.hold = asyncio.Event()
    beginner = asyncio.create_task(other.refresh(first))
    await other.began.wait()

    both = asyncio.create_task(counted.refresh(first, second))
    await counted.began.wait()
    assert not await full(second)
    assert not both.done()
    other.hold.set()
    await asyncio.gather(beginner, both)

    assert [await full(first), await full(second)] == [True, False]


# The meter


@pytest.mark.parametrize(
    ("meter", "at_least", "at_most", "tokens", "to"),
    [
        # An unused meter lags behind; it counts as standing at now, 100 s. At 10 a second a token is 0.1 s.
        (0, 1, 1, 1, 100_100_000),
        (0, 1, 4, 4, 100_400_000),
        (0, 10, 10, 10, 101_000_000),
        # Half a second ahead: five are left.
        (100_500_000, 1, 9, 5, 101_000_000),
        (100_500_000, 6, 6, 0, 100_500_000),
        (101_000_000, 1, 1, 0, 101_000_000),
        # Beyond what anybody can have moved it to: as if used up, not for ever.
        (999_000_000, 1, 1, 0, 999_000_000),
    ],
)
def test_a_meter_gives_what_is_left_of_a_second(meter: int, at_least: int, at_most: int, tokens: int, to: int) -> None:
    drawn = draw(meter, 100 * SECOND, a_second=10, at_least=at_least, at_most=at_most)

    assert (drawn.tokens, drawn.to) == (tokens, to)


def test_a_refusal_says_when_there_will_be_enough() -> None:
    # Used up to one second ahead: three tokens of 0.1 s each are there in 0.3 s.
    assert draw(101 * SECOND, 100 * SECOND, a_second=10, at_least=3, at_most=3).wait_micros == 300_000
    assert draw(999 * SECOND, 100 * SECOND, a_second=10, at_least=3, at_most=3).wait_micros == 300_000


@pytest.mark.parametrize("a_second", [1, 3, 7, 100, 33_333])
def test_in_the_long_run_a_meter_gives_no_more_than_its_rate(a_second: int) -> None:
    random, meter, taken = Random(a_second), 0, 0
    start = now = 1_000 * SECOND
    while now < start + 10 * SECOND:
        now += random.randrange(20_000)
        drawn = draw(meter, now, a_second=a_second, at_least=1, at_most=1 + random.randrange(a_second))
        meter, taken = drawn.to, taken + drawn.tokens
        # The burst of one second, and the rate since.
        assert taken <= a_second + a_second * (now - start) / SECOND
    assert taken >= a_second * 10 - 1


# The rate


async def accepted(rate: RateLimit, times: int, jobs: int = 1) -> int:
    """How many of so many requests are let in."""
    count = 0
    for _ in range(times):
        try:
            await rate.take(jobs)
        except RateLimited:
            continue
        count += 1
    return count


async def test_processes_share_one_rate(jobs: MemoryJobs, clock: HandClock) -> None:
    rates = [RateLimit(port(jobs), a_second=100, clock=clock) for _ in range(3)]
    total = 0

    for tenth in range(50):
        clock.seconds = tenth / 10
        total += sum([await accepted(rate, 30) for rate in rates])

    # 4.9 seconds at 100, and the burst. Nothing is lost but what was taken in advance and not used.
    assert 590 - 3 * 100 / ADVANCES_A_SECOND <= total <= 590


async def test_a_refusal_does_not_ask_the_store(jobs: MemoryJobs, clock: HandClock) -> None:
    rate = RateLimit(port(jobs), a_second=10, clock=clock)
    assert await accepted(rate, 20) == 10
    jobs.meters = {}  # were it asked, it would say that nothing was used

    assert await accepted(rate, 100) == 0

    clock.seconds = 0.1
    assert await accepted(rate, 1) == 1


class NeverBack(HandClock):
    """A clock whose time stands still while it is behind what it said before, as that of a server."""

    latest = START

    def now(self) -> datetime:
        self.latest = max(self.latest, self.surely_past())
        return self.latest

    def surely_past(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_clock_that_is_set_back_stops_nobody_for_longer_than_the_burst(
    jobs: MemoryJobs, processes: int
) -> None:
    clock = NeverBack()
    rates = [RateLimit(port(jobs), a_second=10, clock=clock) for _ in range(processes)]
    clock.seconds = 3600
    assert await accepted(rates[0], 20) == 10

    clock.seconds = 0
    assert [await accepted(rate, 20) for rate in rates] == [0] * processes
    clock.seconds = 2
    assert sum([await accepted(rate, 20) for rate in rates]) == 10


async def test_a_meter_that_other_clocks_moved_a_little_too_far_is_left_alone(
    jobs: MemoryJobs, clock: HandClock
) -> None:
    ahead = int(clock.now().timestamp() * SECOND) + 2 * SECOND
    jobs.meters[METER] = ahead

    assert await accepted(RateLimit(port(jobs), a_second=10, clock=clock), 20) == 0
    assert jobs.meters[METER] == ahead


async def test_many_are_taken_at_once_in_one_advance(jobs: MemoryJobs, clock: HandClock) -> None:
    rate = RateLimit(port(jobs), a_second=10_000, clock=clock)
    await rate.take(1)
    meter = dict(jobs.meters)

    assert await accepted(rate, 499) == 499

    assert jobs.meters == meter


async def test_what_is_at_hand_is_used_beside_what_is_taken_for_many(jobs: MemoryJobs, clock: HandClock) -> None:
    """Of two times five: one, six, and the three that are left."""
    rate = RateLimit(port(jobs), a_second=5 * ADVANCES_A_SECOND, clock=clock)
    for wanted in (1, 6):
        await rate.take(wanted)
    meter = dict(jobs.meters)

    await rate.take(3)

    assert jobs.meters == meter


async def test_what_is_at_hand_counts_for_who_wants_the_rest(jobs: MemoryJobs, clock: HandClock) -> None:
    a_second = 5 * ADVANCES_A_SECOND
    rate = RateLimit(port(jobs), a_second=a_second, clock=clock)
    await rate.take(1)

    await rate.take(a_second - 1)


async def test_processes_that_move_the_meter_at_the_same_time_share_one_rate(clock: HandClock) -> None:
    class Slow(MemoryJobs):
        async def read_meter(self, name: str) -> int:
            found = await super().read_meter(name)
            await asyncio.sleep(0)
            return found

    jobs, a_second = Slow(), ADVANCES_A_SECOND
    rates = [RateLimit(port(jobs), a_second=a_second, clock=clock) for _ in range(2 * a_second)]

    let_in = await asyncio.gather(*(accepted(rate, 1) for rate in rates))

    assert 0 < sum(let_in) <= a_second


async def test_where_tokens_come_one_by_one_the_store_is_asked_now_and_then(clock: HandClock) -> None:
    class Counting(MemoryJobs):
        asked = 0

        async def read_meter(self, name: str) -> int:
            self.asked += 1
            return await super().read_meter(name)

    jobs, a_second = Counting(), 5 * ADVANCES_A_SECOND
    rate = RateLimit(port(jobs), a_second=a_second, clock=clock)
    await rate.take(a_second)
    jobs.asked = 0

    for _ in range(a_second):
        clock.seconds += 1 / a_second
        await accepted(rate, 1)

    assert 0 < jobs.asked <= ADVANCES_A_SECOND


async def test_who_stands_in_line_takes_what_the_first_of_them_brings(clock: HandClock) -> None:
    class Slow(MemoryJobs):
        asked = 0

        async def read_meter(self, name: str) -> int:
            self.asked += 1
            await asyncio.sleep(0)
            return await super().read_meter(name)

    jobs = Slow()
    rate = RateLimit(port(jobs), a_second=5 * ADVANCES_A_SECOND, clock=clock)

    await asyncio.gather(*(rate.take(1) for _ in range(5)))

    assert jobs.asked == 1


async def test_what_was_taken_in_advance_and_not_used_is_not_saved_up(jobs: MemoryJobs, clock: HandClock) -> None:
    a_second = 5 * ADVANCES_A_SECOND
    rate = RateLimit(port(jobs), a_second=a_second, clock=clock)
    await rate.take(1)
    clock.seconds = 1.0

    await rate.take(a_second)

    with pytest.raises(RateLimited):
        await rate.take(1)


async def test_more_at_once_than_the_rate_is_refused(jobs: MemoryJobs, clock: HandClock) -> None:
    rate = RateLimit(port(jobs), a_second=10, clock=clock)

    with pytest.raises(RateLimited):
        await rate.take(11)
    await rate.take(10)

    assert jobs.meters != {}


async def test_a_request_that_needs_many_is_refused_while_one_that_needs_few_is_let_in(
    jobs: MemoryJobs, clock: HandClock
) -> None:
    rate = RateLimit(port(jobs), a_second=1_000, clock=clock)
    await rate.take(900)

    with pytest.raises(RateLimited) as refused:
        await rate.take(500)

    assert (refused.value.limit, refused.value.retry_after_seconds) == (1_000, 1)
    clock.seconds = 0.05
    await rate.take(150)


async def test_where_many_are_refused_one_is_let_in_at_once(jobs: MemoryJobs, clock: HandClock) -> None:
    """What is left is learnt only from the meter, which another process has moved."""
    rate, other = [RateLimit(port(jobs), a_second=100, clock=clock) for _ in range(2)]
    await other.take(60)

    assert await accepted(rate, 1, jobs=64) == 0
    assert await accepted(rate, 40) == 40


@pytest.mark.parametrize("verb", ["read_meter", "move_meter"])  # the other one is answered: it can be read, not written
async def test_a_store_that_does_not_answer_is_asked_once_for_all_who_stand_in_line(
    jobs: MemoryJobs, clock: HandClock, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    asked = 0

    async def away(name: str, **_: int) -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise Unavailable("away")

    monkeypatch.setattr(jobs, verb, away)
    rate = RateLimit(port(jobs), a_second=10, clock=clock)

    answers = await asyncio.gather(*(rate.take(1) for _ in range(20)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [Unavailable] * 20
    assert asked == 1


# All together


async def test_without_limits_nothing_is_asked(jobs: MemoryJobs, clock: HandClock) -> None:
    jobs.broken = Unavailable("away")
    admission = Admission(port(jobs), limits=AdmissionLimits(), clock=clock)

    async with admission.admit(["a"] * 10_000):
        pass

    assert jobs.counts == 0


async def test_what_does_not_fit_is_refused_whole(jobs: MemoryJobs, clock: HandClock) -> None:
    admission = Admission(port(jobs), limits=AdmissionLimits(pending=5), clock=clock)

    with pytest.raises(QueueFull, match="more than may wait"):
        async with admission.admit(["a"] * 6):
            raise AssertionError("let in")
    async with admission.admit(["a"] * 5):
        pass


@pytest.mark.parametrize("wanted", [["b", "a"], ["a", "b"]])
async def test_a_full_queue_does_not_close_another_nor_open_it(
    jobs: MemoryJobs, clock: HandClock, wanted: list[str]
) -> None:
    admission = Admission(port(jobs), limits=AdmissionLimits(pending=5, pending_per_queue=2), clock=clock)
    async with admission.admit(["a", "a", "b"]):
        pass

    with pytest.raises(QueueFull, match="queue 'a'"):
        async with admission.admit(wanted):
            raise AssertionError("let in")
    async with admission.admit(["b"]):
        pass
    with pytest.raises(QueueFull, match="queue 'b'"):
        async with admission.admit(["b"]):
            raise AssertionError("let in")


async def test_what_is_given_back_leaves_room_in_its_own_queue(jobs: MemoryJobs, clock: HandClock) -> None:
    admission = Admission(port(jobs), limits=AdmissionLimits(pending_per_queue=1), clock=clock)

    async with admission.admit(["a", "b"]) as admitted:
        admitted.give_back("b")

    async with admission.admit(["b"]):
        pass
    with pytest.raises(QueueFull, match="queue 'a'"):
        async with admission.admit(["a"]):
            raise AssertionError("let in")


@pytest.mark.parametrize("limits", [AdmissionLimits(pending=1), AdmissionLimits(a_second=1)])
async def test_a_refused_job_gives_its_place_back_and_one_that_may_be_stored_does_not(
    jobs: MemoryJobs, clock: HandClock, limits: AdmissionLimits
) -> None:
    admission = Admission(port(jobs), limits=limits, clock=clock)
    for _ in range(3):
        with pytest.raises(DuplicateJob):
            async with admission.admit(["a"]):
                raise DuplicateJob("id", "x", existing=None)

    with pytest.raises(OutcomeUnknown):
        async with admission.admit(["a"]):
            raise OutcomeUnknown("x", "the answer was lost")

    with pytest.raises((QueueFull, RateLimited)):
        async with admission.admit(["a"]):
            raise AssertionError("let in")


async def test_what_the_rate_refuses_takes_no_room(jobs: MemoryJobs, clock: HandClock) -> None:
    admission = Admission(port(jobs), limits=AdmissionLimits(pending=2, a_second=1), clock=clock)
    async with admission.admit(["a"]):
        pass
    for _ in range(5):
        with pytest.raises(RateLimited):
            async with admission.admit(["a"]):
                raise AssertionError("let in")

    clock.seconds = 0.999
    with pytest.raises(RateLimited):
        async with admission.admit(["a"]):
            raise AssertionError("let in")
    clock.seconds = 1.0
    jobs.jobs["j"] = Job(id=JobId("j"))
    async with admission.admit(["a"]):
        pass


async def test_a_queue_is_not_forgotten_while_somebody_asks_for_room_in_it(jobs: MemoryJobs, clock: HandClock) -> None:
    class Slow(MemoryJobs):
        async def count_waiting(self, limit: int) -> int:
            await may_count.wait()
            return await super().count_waiting(limit)

    may_count = asyncio.Event()
    admission = Admission(port(Slow()), limits=AdmissionLimits(pending=10_000, pending_per_queue=1), clock=clock)

    async def let_in(queue: str) -> None:
        async with admission.admit([queue]):
            await stored.wait()

    stored = asyncio.Event()
    names = ["hot", *(f"queue-{number}" for number in range(MAX_QUEUES_WATCHED)), "hot"]
    asking = [asyncio.create_task(let_in(name)) for name in names]
    await asyncio.sleep(0)
    may_count.set()
    await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
    stored.set()

    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers if answer is not None] == [QueueFull]


async def test_no_queue_of_many_in_one_request_is_forgotten_while_that_is_let_in(clock: HandClock) -> None:
    admission = Admission(port(MemoryJobs()), limits=AdmissionLimits(pending_per_queue=1), clock=clock)
    queues = [f"queue-{number}" for number in range(MAX_QUEUES_WATCHED + 1)]

    async with admission.admit(queues):
        for queue in queues:
            with pytest.raises(QueueFull):
                await admission.admit([queue]).__aenter__()


async def test_many_queues_are_one_question(jobs: MemoryJobs, clock: HandClock) -> None:
    admission = Admission(port(jobs), limits=AdmissionLimits(pending=10_000, pending_per_queue=2), clock=clock)
    jobs.jobs = {queue: Job(id=JobId(queue), queue=queue) for queue in ("queue-3", "another")}

    async with admission.admit([f"queue-{number % 1_000}" for number in range(1_000)]):
        pass
    assert jobs.counts == 2  # all, and in each queue

    with pytest.raises(QueueFull, match="2 jobs wait in the queue 'queue-3'"):
        async with admission.admit(["queue-2", "queue-3"]):
            raise AssertionError("let in")


async def test_names_of_queues_are_forgotten_when_they_are_too_many(jobs: MemoryJobs, clock: HandClock) -> None:
    admission = Admission(port(jobs), limits=AdmissionLimits(pending_per_queue=1), clock=clock)
    for number in range(3 * MAX_QUEUES_WATCHED):
        clock.seconds += 0.01
        async with admission.admit([f"q{number}"]):
            pass

    assert len(admission._of_queues) <= MAX_QUEUES_WATCHED
