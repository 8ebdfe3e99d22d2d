"""Hints go at once while they are rare, and in step while they are not."""

from __future__ import annotations

from hand_clock import HandClock

from jobqueue.pace import Pace


def waits(pace: Pace, count: int) -> list[float]:
    return [round(pace.reserve(), 6) for _ in range(count)]


def test_after_a_quiet_time_a_few_go_at_once_and_the_rest_one_by_one() -> None:
    pace = Pace(0.5, burst=3, clock=HandClock())

    assert waits(pace, 6) == [0, 0, 0, 0.5, 1, 1.5]


def test_quiet_time_is_credited_up_to_the_burst() -> None:
    clock = HandClock()
    pace = Pace(0.5, burst=3, clock=clock)
    waits(pace, 3)

    clock.seconds += 1.0  # two steps
    assert waits(pace, 3) == [0, 0, 0.5]

    clock.seconds += 100.0
    assert waits(pace, 4) == [0, 0, 0, 0.5]


def test_what_comes_no_more_often_than_the_pace_never_waits() -> None:
    clock = HandClock()
    pace = Pace(0.5, burst=1, clock=clock)

    for _ in range(10):
        assert waits(pace, 1) == [0]
        clock.seconds += 0.5
