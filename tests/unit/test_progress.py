"""Progress is written once in a while, however often a task reports it, and costs a running job nothing."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hand_clock import HandClock
from observers import settle

from jobqueue.errors import LeaseLost, OutcomeUnknown
from jobqueue.job import Claim, JobId, LeaseId, Progress
from jobqueue.progress import ProgressReporter

CLAIM = Claim(JobId("a"), LeaseId("L"))
FOR_EVER = 3_600.0


HURRY = contextvars.ContextVar("hurry", default=False)
"""Stands for what a `pymongo.timeout` sets: a deadline for all that is done in the same context."""


def in_a_hurry(do: Callable[[], None]) -> None:
    HURRY.set(True)
    do()


class Shown:
    """Of a repository, what shows progress; the first time it may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.percents: list[float | None] = []
        self.tried = asyncio.Queue[float | None]()
        self.hurried: list[bool] = []
        self.on_tried: Callable[[], None] = lambda: None
        self._error = error

    async def report_progress(self, claim: Claim, progress: Progress, *, at: datetime) -> None:
        self.tried.put_nowait(progress.percent)
        self.hurried.append(HURRY.get())
        self.on_tried()
        error, self._error = self._error, None
        if error is not None:
            raise error
        self.percents.append(progress.percent)


def reporter(shown: Shown, *, pause_seconds: float) -> ProgressReporter:
    jobs: Any = shown
    return ProgressReporter(jobs, HandClock(), pause_seconds=pause_seconds)


async def test_nothing_more_is_written_within_the_pause() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)
    reporting.report(CLAIM, Progress(percent=1))
    await shown.tried.get()

    reporting.report(CLAIM, Progress(percent=2))
    await settle()

    assert shown.percents == [1]
    reporting.forget(CLAIM)


async def test_of_what_came_within_the_pause_the_newest_is_written() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=0.01)
    reporting.report(CLAIM, Progress(percent=1))
    await shown.tried.get()

    reporting.report(CLAIM, Progress(percent=2))
    reporting.report(CLAIM, Progress(percent=3))
    await asyncio.wait_for(shown.tried.get(), 30)

    assert shown.percents == [1, 3]
    reporting.forget(CLAIM)


async def test_attempts_do_not_wait_for_each_other() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)
    other = Claim(JobId("b"), LeaseId("L"))

    reporting.report(CLAIM, Progress(percent=1))
    reporting.report(other, Progress(percent=2))
    await settle()

    assert shown.percents == [1, 2]
    reporting.forget(CLAIM)
    reporting.forget(other)


async def test_what_could_not_be_written_is_dropped_and_the_next_is_tried() -> None:
    for error in (LeaseLost("a", "L"), OutcomeUnknown("a", "no answer")):
        shown = Shown(error)
        reporting = reporter(shown, pause_seconds=FOR_EVER)
        reporting.report(CLAIM, Progress(percent=1))
        await settle()

        reporting.report(CLAIM, Progress(percent=2))
        await settle()

        assert shown.percents == [2]
        reporting.forget(CLAIM)


async def test_what_an_attempt_said_last_is_written_when_it_ends() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)
    reporting.report(CLAIM, Progress(percent=1))
    await shown.tried.get()
    reporting.report(CLAIM, Progress(percent=2))

    assert reporting.holds(CLAIM)
    await asyncio.wait_for(reporting.finish(CLAIM), 30)

    assert shown.percents == [1, 2]
    assert not reporting.holds(CLAIM)


async def test_what_the_loop_has_not_heard_of_yet_is_written_when_the_attempt_ends() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)

    reporting.report(CLAIM, Progress(percent=1))
    assert reporting.holds(CLAIM)
    await asyncio.wait_for(reporting.finish(CLAIM), 30)

    assert shown.percents == [1]


async def test_a_thread_that_goes_on_reporting_does_not_hold_up_the_end() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)
    shown.on_tried = lambda: reporting.report(CLAIM, Progress(percent=99))

    reporting.report(CLAIM, Progress(percent=1))
    await shown.tried.get()
    await asyncio.wait_for(reporting.finish(CLAIM), 30)

    assert shown.percents[:2] == [1, 99]  # a third may have begun by now, and nobody waits for it
    reporting.forget(CLAIM)


async def test_a_deadline_around_the_report_is_not_one_for_the_write() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)

    contextvars.copy_context().run(in_a_hurry, lambda: reporting.report(CLAIM, Progress(percent=1)))
    await settle()

    assert shown.hurried == [False]
    reporting.forget(CLAIM)


async def test_a_deadline_around_the_end_is_not_one_for_the_last_write() -> None:
    shown = Shown()
    reporting = reporter(shown, pause_seconds=FOR_EVER)
    hurried = contextvars.copy_context()
    hurried.run(HURRY.set, True)

    finishing = asyncio.create_task(reporting.finish(CLAIM), context=hurried)
    reporting.report(CLAIM, Progress(percent=1))  # heard of by the loop when it is being finished already
    await finishing

    assert shown.hurried == [False]


async def test_a_task_that_never_lets_go_of_the_loop_does_not_fill_it_with_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, loop = Shown(), asyncio.get_running_loop()
    reporting = reporter(shown, pause_seconds=0.01)
    told: list[object] = []
    call_soon = loop.call_soon_threadsafe

    def count(callback: Any, *arguments: Any, **options: Any) -> asyncio.Handle:
        told.append(callback)
        return call_soon(callback, *arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)

    for percent in range(1, 101):
        reporting.report(CLAIM, Progress(percent=percent))
    assert len(told) == 1
    await asyncio.wait_for(shown.tried.get(), 30)

    reporting.report(CLAIM, Progress(percent=0))
    await asyncio.wait_for(shown.tried.get(), 30)

    assert shown.percents == [100, 0]
    reporting.forget(CLAIM)
