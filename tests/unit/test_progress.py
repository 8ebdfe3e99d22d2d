"""Progress is written once in a while, however often a task reports it, and costs a running job nothing."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from bench import StandingClock
from observers import settle

from jobqueue.errors import LeaseLost, OutcomeUnknown
from jobqueue.job import Claim, JobId, LeaseId, Progress
from jobqueue.progress import ProgressReporter

CLAIM = Claim(JobId("a"), LeaseId("L"))
FOR_EVER = 3_600.0


class Shown:
    """Of a repository, what shows progress; the first time it may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.percents: list[float | None] = []
        self.tried = asyncio.Queue[float | None]()
        self._error = error

    async def report_progress(self, claim: Claim, progress: Progress, *, at: datetime) -> None:
        self.tried.put_nowait(progress.percent)
        error, self._error = self._error, None
        if error is not None:
            raise error
        self.percents.append(progress.percent)


def reporter(shown: Shown, *, pause_seconds: float) -> ProgressReporter:
    jobs: Any = shown
    return ProgressReporter(jobs, StandingClock(), pause_seconds=pause_seconds)


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
