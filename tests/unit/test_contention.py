from datetime import UTC, datetime
from random import Random

import pytest
from hand_clock import HandClock
from worker_records import worker_record

from jobqueue.contention import ABSENT_SECONDS, COMPANY_SECONDS, SAME_BACKLOG_SECONDS, Contention
from jobqueue.job import Candidate, JobId, WorkerId
from jobqueue.repository import Window, WorkerRecord

START = datetime(2026, 2, 2, tzinfo=UTC)
WORKERS = [WorkerId(f"worker-{number}") for number in range(3)]


def alive(*workers: WorkerId, queues: str = "*") -> list[WorkerRecord]:
    return [worker_record(worker, queues=queues) for worker in workers]


def candidates(count: int, *, priority: int = 0) -> list[Candidate]:
    return [Candidate(-priority, START, JobId(f"job-{priority}-{number}"), "default") for number in range(count)]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def sharing(clock: HandClock, worker: WorkerId = WORKERS[0]) -> Contention:
    contention = Contention(worker, clock)
    contention.observe(asked=10, won=1)
    contention.meet(alive(*WORKERS))
    return contention


def test_workers_that_collide_divide_what_waits_and_leave_nothing_out(clock: HandClock) -> None:
    window = Window(candidates(300), complete=False)

    shares = [sharing(clock, worker).share(window, busy=()).candidates for worker in WORKERS]

    end = window.candidates[-1]  # says how far the look went, and so is in each
    assert sorted([*(each for share in shares for each in share if each != end), end]) == sorted(window.candidates)
    assert all(60 < len(share) < 140 and share[-1] == end for share in shares)


@pytest.mark.parametrize(("asked", "won"), [(1, 0), (100, 75), (0, 0)])
def test_a_few_lost_jobs_are_no_reason_to_share(clock: HandClock, asked: int, won: int) -> None:
    contention = Contention(WORKERS[0], clock)
    contention.meet(alive(*WORKERS))

    assert not contention.observe(asked=asked, won=won)

    window = Window(candidates(30), complete=False)
    assert contention.share(window, busy=()) is window


def test_only_the_first_loss_says_that_what_is_at_hand_is_worth_nothing(clock: HandClock) -> None:
    contention = Contention(WORKERS[0], clock)

    assert [contention.observe(asked=100, won=74) for _ in range(2)] == [True, False]


def test_after_a_while_without_a_loss_nothing_is_left_to_others(clock: HandClock) -> None:
    contention, window = sharing(clock), Window(candidates(30), complete=False)

    clock.seconds += SAME_BACKLOG_SECONDS

    assert contention.shares == 1
    assert contention.share(window, busy=()) is window


def test_what_is_left_to_others_is_not_passed_over_for_something_less_urgent(clock: HandClock) -> None:
    urgent, others = candidates(30, priority=5), candidates(30)

    share = sharing(clock).share(Window([*urgent, *others], complete=False), busy=())

    assert set(share.candidates) < set(urgent)
    assert not share.complete


def test_a_share_holds_what_could_be_taken_here(clock: HandClock) -> None:
    urgent, others = candidates(30, priority=5), candidates(30)

    share = sharing(clock).share(Window([*urgent, *others], complete=True), busy=urgent)

    assert share.candidates
    assert set(share.candidates) < set(others)
    assert not share.complete


def test_what_fell_to_others_is_taken_when_nothing_of_ones_own_is_in_sight(clock: HandClock) -> None:
    """Or the jobs of a worker that is frozen, or serves other queues, would wait for it for ever."""
    window = Window(candidates(100), complete=True)
    mine = {each.id for each in sharing(clock).share(window, busy=()).candidates[:-1]}
    theirs = Window([each for each in window.candidates if each.id not in mine], complete=True)

    assert sharing(clock).share(theirs, busy=()) == theirs


def test_a_window_without_a_readable_candidate_can_be_shared(clock: HandClock) -> None:
    nothing = Window([], complete=False)

    assert sharing(clock).share(nothing, busy=()) is nothing


# What is heard of


def test_what_is_heard_of_falls_to_one_worker_each(clock: HandClock) -> None:
    heard = candidates(300)

    taken = [[each for each in heard if not sharing(clock, worker).is_left(each)] for worker in WORKERS]

    assert sorted(each for some in taken for each in some) == sorted(heard)
    assert all(60 < len(some) < 140 for some in taken)


def test_workers_of_other_queues_get_nothing(clock: HandClock) -> None:
    contention = Contention(WORKERS[0], clock)
    contention.observe(asked=1, won=0)
    contention.meet([*alive(WORKERS[0], WORKERS[1]), *alive(WORKERS[2], queues="other")])

    heard = candidates(300)
    left = {
        queue: sum(contention.is_left(each._replace(queue=queue)) for each in heard) for queue in ("default", "other")
    }

    assert 100 < left["default"] < 200  # a half
    assert 160 < left["other"] < 240  # two thirds


def test_who_did_not_take_what_fell_to_it_is_passed_over_for_a_while(clock: HandClock) -> None:
    contention, heard = sharing(clock), candidates(300)
    left = [each for each in heard if contention.is_left(each)]

    contention.miss(left)
    assert not any(contention.is_left(each) for each in heard)

    contention.meet(alive(*WORKERS))
    assert not any(contention.is_left(each) for each in heard)

    clock.seconds += ABSENT_SECONDS
    contention.meet(alive(*WORKERS))
    assert [each for each in heard if contention.is_left(each)] == left


def test_nothing_is_held_against_others_when_nothing_was_missed(clock: HandClock) -> None:
    contention, heard = sharing(clock), candidates(300)
    left = [each for each in heard if contention.is_left(each)]

    contention.miss([])
    contention.miss(set(heard) - set(left))

    assert [each for each in heard if contention.is_left(each)] == left


def test_one_lost_job_tells_of_others_until_it_is_long_ago_or_nobody_is_there(clock: HandClock) -> None:
    contention = Contention(WORKERS[0], clock)
    assert contention.is_alone

    contention.observe(asked=1, won=0)
    assert (contention.is_alone, contention.knows_others) == (False, False)

    clock.seconds += 1
    contention.meet(alive(*WORKERS))
    assert (contention.is_alone, contention.knows_others) == (False, True)

    contention.meet(alive(WORKERS[0]))
    assert (contention.is_alone, contention.knows_others) == (True, False)

    contention.observe(asked=1, won=0)
    clock.seconds += COMPANY_SECONDS
    assert contention.is_alone
    assert not any(contention.is_left(each) for each in candidates(30))


def test_a_process_that_is_alone_does_not_hesitate(clock: HandClock) -> None:
    contention = Contention(WORKERS[0], clock)

    contention.observe(asked=1, won=1)

    assert contention.hesitation(Random(1)) == 0


def test_processes_that_get_in_each_others_way_look_at_different_times(clock: HandClock) -> None:
    contention = Contention(WORKERS[0], clock)
    contention.observe(asked=1, won=0)
    random = Random(1)

    hesitations = {contention.hesitation(random) for _ in range(10)}

    assert len(hesitations) == 10


def test_hesitation_fades_while_every_claim_is_won(clock: HandClock) -> None:
    contention = Contention(WORKERS[0], clock)
    contention.observe(asked=1, won=0)
    first = contention.hesitation(Random(1))

    for _ in range(100):
        contention.observe(asked=1, won=1)

    assert contention.hesitation(Random(1)) < first / 100
