"""Writes what running tasks say of their progress: the newest, at most once a second for each attempt, and what an
attempt said last before its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import NamedTuple

from jobqueue.clock import Clock
from jobqueue.errors import LeaseLost, Unavailable
from jobqueue.job import Claim, Progress
from jobqueue.repository import JobRepository

PAUSE_SECONDS = 1.0


class _Writer(NamedTuple):
    """Who writes what one attempt says, and the sign that the attempt has ended."""

    task: asyncio.Task[None]
    over: asyncio.Event


class ProgressReporter:
    """Belongs to one event loop. Progress is a courtesy: what cannot be written is dropped."""

    def __init__(self, jobs: JobRepository, clock: Clock, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._jobs = jobs
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._newest: dict[Claim, Progress] = {}
        self._told: set[Claim] = set()
        self._writers: dict[Claim, _Writer] = {}

    def report(self, claim: Claim, progress: Progress) -> None:
        """Take the newest progress of an attempt. May be called in any thread; never blocks."""
        self._newest[claim] = progress
        # Once until the loop has heard of it, however often a task reports that never lets go of the loop.
        if claim not in self._told:
            self._told.add(claim)
            self._loop.call_soon_threadsafe(self._begin, claim)

    def holds(self, claim: Claim) -> bool:
        """Whether something that this attempt said may still have to be written."""
        return claim in self._newest or claim in self._writers

    async def finish(self, claim: Claim) -> None:
        """The attempt has ended: write what it said last, without a pause. What a thread of it goes on to say then is
        not waited for."""
        writer = self._begin(claim)
        writer.over.set()
        await asyncio.wait([writer.task])

    def forget(self, claim: Claim) -> None:
        """The attempt is over."""
        self._newest.pop(claim, None)
        if writer := self._writers.pop(claim, None):
            writer.task.cancel()

    def _begin(self, claim: Claim) -> _Writer:
        self._told.discard(claim)  # before it is looked at: what is reported from now on is told anew
        writer = self._writers.get(claim)
        if writer is None:
            over = asyncio.Event()
            # Not in the context of the task: a `pymongo.timeout` around its report is not about what is written here.
            task = self._loop.create_task(self._write(claim, over), name="progress", context=self._context.copy())
            writer = self._writers[claim] = _Writer(task, over)
        return writer

    async def _write(self, claim: Claim, over: asyncio.Event) -> None:
        try:
            last = False
            while not last and (progress := self._newest.pop(claim, None)) is not None:
                last = over.is_set()
                await self._jobs.report_progress(claim, progress, at=self._clock.now())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), self._pause_seconds)
        except (LeaseLost, Unavailable):
            self._newest.pop(claim, None)
        finally:
            self._writers.pop(claim, None)
