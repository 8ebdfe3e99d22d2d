"""What the demo shows and counts."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from jobqueue.demo.screen import Screen
from jobqueue.demo.tally import Tally

METRICS = {"queue_depth": 7, "in_progress": 4, "processed": 20, "retried": 3, "dlq_size": 2, "idempotency_keys": 1}


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def screen_of(time: FakeTime, *, terminal: bool) -> tuple[Screen, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=100, color_system=None, legacy_windows=False)
    return Screen(console, max_pending=40, monotonic=time), shown


def job(status: str, *, errors: int = 0, **fields: Any) -> dict[str, Any]:
    return {"status": status, **({"errors": [{}] * errors} if errors else {}), **fields}


def test_a_failure_was_tried_again_unless_it_made_the_job_a_dead_letter() -> None:
    jobs = [
        job("completed", idempotencyKey="order-42"),
        job("completed", errors=2),  # failed twice, tried again twice
        job("failed", errors=3),  # tried again twice, then dead
        job("completed", errors=3, redrives=1),  # the same, then redriven
    ]

    assert Tally.of_jobs(4, jobs) == Tally(accepted=4, completed=3, dead_letters=1, retried=6, idempotency_keys=1)


def test_the_service_accepted_what_has_ended_and_what_has_not() -> None:
    tally = Tally.of_metrics(METRICS)

    assert tally == Tally(accepted=33, completed=20, dead_letters=2, retried=3, idempotency_keys=1)
    assert not tally.all_ended
    assert replace(tally, accepted=22).all_ended


def test_without_a_terminal_the_statistics_are_one_line_a_second() -> None:
    time = FakeTime()
    screen, shown = screen_of(time, terminal=False)

    with screen:
        screen.show(METRICS)
        time.now += 0.9
        screen.show(METRICS)
        screen.say("[bold] is no markup")
        time.now += 0.1
        screen.show(METRICS)

    statistics = "-- 7 waiting, 4 running, 20 completed, 3 tried again, 2 dead letters"
    assert shown.getvalue().splitlines() == [
        f"  0.0 s  {statistics}",
        "  0.9 s  [bold] is no markup",
        f"  1.0 s  {statistics}",
    ]


def test_on_a_terminal_the_statistics_stay_in_place_and_go_at_the_end() -> None:
    screen, shown = screen_of(FakeTime(), terminal=True)

    with screen:
        screen.show(METRICS)
        drawn = shown.getvalue()
        screen.show(METRICS)
        again = shown.getvalue().removeprefix(drawn)

    cursor_up, cursor_back = "\x1b[1A", "\x1b[?25h"
    assert "waiting       7" in drawn
    assert again.startswith("\r")
    assert cursor_up in again
    assert cursor_back in shown.getvalue()
