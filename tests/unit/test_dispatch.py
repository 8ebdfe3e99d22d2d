from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hand_clock import HandClock

from jobqueue.dispatch import Busy, ReadyQueue, SignallingDispatcher
from jobqueue.job import Candidate, Job, JobId
from jobqueue.repository import JobRepository, Window

START = datetime(2026, 2, 2, tzinfo=UTC)


def candidate(name: str, *, priority: int = 0, due: int = 0) -> Candidate:
    return Candidate(-priority, START + timedelta(seconds=due), JobId(name), "default")


def ids(candidates: list[Candidate]) -> list[str]:
    return [each.id for each in candidates]


def open_queue(capacity: int = 10) -> ReadyQueue:
    queue = ReadyQueue(capacity)
    queue.look(Window([], complete=True), from_head=True)
    return queue


def test_nothing_is_taken_in_before_the_first_look() -> None:
    queue = ReadyQueue(10)

    assert not queue.offer([candidate("a")])

    assert len(queue) == 0


def test_order_is_priority_then_due_time_then_id() -> None:
    queue = open_queue()

    queue.offer([candidate("c", due=1), candidate("b"), candidate("a"), candidate("urgent", priority=9, due=5)])

    assert ids(queue.take(10)) == ["urgent", "a", "b", "c"]


def test_a_local_job_behind_the_horizon_is_left_to_the_store() -> None:
    queue = ReadyQueue(10)
    queue.look(Window([candidate("a", priority=5), candidate("b", priority=3)], complete=False), from_head=True)

    assert not queue.offer([candidate("late", priority=2), candidate("early", priority=4)])
    assert queue.offer([candidate("urgent", priority=9)])

    assert ids(queue.take(10)) == ["urgent", "a", "early", "b"]


def test_a_local_job_never_overtakes_what_the_store_still_has() -> None:
    """The window was claimed to its end, but the store has more: the next look decides, not the local offer."""
    queue = ReadyQueue(10)
    queue.look(Window([candidate("a", priority=5)], complete=False), from_head=True)
    queue.take(1)

    assert not queue.offer([candidate("local", priority=4)])

    found = queue.look(
        Window([candidate("b", priority=5, due=1), candidate("local", priority=4)], complete=True), from_head=False
    )
    assert found == 2
    assert ids(queue.take(10)) == ["b", "local"]


def test_going_back_to_the_head_forgets_what_may_have_gaps_before_it() -> None:
    queue = ReadyQueue(10)
    queue.look(Window([candidate("m", priority=1)], complete=True), from_head=True)

    queue.look(Window([candidate("new", priority=9)], complete=False), from_head=True)

    assert ids(queue.take(10)) == ["new"]
    queue.look(Window([candidate("m", priority=1)], complete=True), from_head=False)
    assert ids(queue.take(10)) == ["m"]


def test_a_full_queue_evicts_the_last_and_takes_nothing_that_sorts_behind_it() -> None:
    queue = open_queue(capacity=2)
    queue.offer([candidate("a"), candidate("c", due=2)])

    assert queue.offer([candidate("b", due=1)])
    assert not queue.complete
    assert not queue.offer([candidate("d", due=3)])

    assert ids(queue.take(10)) == ["a", "b"]


def test_a_job_that_does_not_fit_is_reported_as_not_taken() -> None:
    queue = open_queue(capacity=1)
    queue.offer([candidate("a")])

    assert not queue.offer([candidate("b", due=1)])

    assert ids(queue.take(10)) == ["a"]


def test_an_id_is_at_hand_only_once() -> None:
    queue = open_queue()
    queue.offer([candidate("a")])

    assert queue.offer([candidate("a")])
    found = queue.look(Window([candidate("a")], complete=True), from_head=True)

    assert found == 0
    assert ids(queue.take(10)) == ["a"]


def test_what_runs_here_already_is_not_taken_in_by_a_look() -> None:
    queue = ReadyQueue(10)

    queue.look(Window([candidate("a"), candidate("b")], complete=True), from_head=True, busy=[candidate("a")])

    assert ids(queue.take(10)) == ["b"]


def test_what_is_forgotten_is_not_known_until_the_next_look() -> None:
    queue = open_queue()
    queue.offer([candidate("a")])

    queue.clear()

    assert not queue.offer([candidate("b")])
    assert (len(queue), queue.complete, queue.horizon) == (0, False, None)
    queue.look(Window([candidate("a")], complete=True), from_head=True)
    assert ids(queue.take(10)) == ["a"]


# What a look passes over


def lose(busy: Busy, each: Candidate) -> None:
    busy.lose([each])


def complete(busy: Busy, each: Candidate) -> None:
    job = Job(id=each.id, run_at=each.run_at)
    busy.finish([job])
    busy.leave(job)


each_end = pytest.mark.parametrize("end", [lose, complete])


@each_end
def test_what_was_taken_and_done_with_during_a_look_is_passed_over_by_that_look_only(
    end: Callable[[Busy, Candidate], None],
) -> None:
    busy, job = Busy(), candidate("a")

    with busy.look():
        busy.take([job])
        end(busy, job)
        assert job in busy
    with busy.look():
        assert job not in busy


@each_end
def test_what_was_done_with_before_a_look_may_wait_again(end: Callable[[Busy, Candidate], None]) -> None:
    busy, job = Busy(), candidate("a")
    with busy.look():
        pass
    busy.take([job])
    end(busy, job)

    with busy.look():
        assert job not in busy


def test_what_a_claim_from_before_a_look_did_not_win_may_wait_again() -> None:
    """It was lost before the look began, and given back since: the claim is only answered later."""
    busy, before, earlier = Busy(), candidate("before"), candidate("earlier")
    with busy.look():
        busy.take([earlier])
    busy.take([before])

    with busy.look():
        busy.lose([before, earlier])
        assert before not in busy
        assert earlier not in busy


# Telling others


class Signals:
    """Remembers what was signalled."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []

    def signal(self, candidates: Collection[Candidate], *, at: datetime) -> None:
        self.told.append(ids(list(candidates)))


def telling(signals: Signals) -> SignallingDispatcher:
    return SignallingDispatcher(cast(JobRepository, signals), HandClock())


def test_jobs_that_became_pending_again_are_signalled() -> None:
    signals = Signals()

    telling(signals).offer_candidates([candidate("a"), candidate("b")])

    assert signals.told == [["a", "b"]]


def test_jobs_that_were_just_stored_tell_of_themselves() -> None:
    signals = Signals()

    telling(signals).offer([Job(id=JobId("new"))])
    telling(signals).offer_candidates([])

    assert signals.told == []
