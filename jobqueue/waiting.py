"""Waiting for a job to finish: one watcher for the whole process, not a poll for each client.

A job that ends in this process wakes its waiters at once. For those that end elsewhere one task reads the
states of everything that is waited for, in one query, and only while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

from jobqueue.errors import Unavailable
from jobqueue.job import FINISHED, JobId
from jobqueue.repository import JobRepository

LOOK_SECONDS = 0.5
MAX_WAITERS = 1_000
"""More than this many are answered at once, with the job as it stands."""


class Waiters:
    """Who waits for which job."""

    def __init__(self, jobs: JobRepository) -> None:
        self._jobs = jobs
        self._waiting: defaultdict[JobId, set[asyncio.Future[None]]] = defaultdict(set)
        self._count = 0
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    async def wait(self, job_id: JobId, *, seconds: float) -> None:
        """Return when the job is finished, when the time is over, or when nobody may wait any more."""
        if self._closed or self._count >= MAX_WAITERS:
            return
        finished = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(finished)
        self._count += 1
        self._watch()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await finished
        finally:
            self._forget(job_id, finished)

    def finished(self, job_id: JobId) -> None:
        """Wake those who wait for this job."""
        for waiter in self._waiting.get(job_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def release_all(self) -> None:
        """Wake everybody, and let nobody wait again."""
        self._closed = True
        for job_id in list(self._waiting):
            self.finished(job_id)
        if self._watcher is not None:
            self._watcher.cancel()

    def _forget(self, job_id: JobId, waiter: asyncio.Future[None]) -> None:
        self._count -= 1
        self._waiting[job_id].discard(waiter)
        if not self._waiting[job_id]:
            del self._waiting[job_id]

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._look_while_awaited(), name="waiters")

    async def _look_while_awaited(self) -> None:
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            # MongoDB being away is no reason to end the wait: the client asked for a time, not for a state.
            with contextlib.suppress(Unavailable):
                await self._look()

    async def _look(self) -> None:
        awaited = list(self._waiting)
        statuses = await self._jobs.statuses(awaited)
        for job_id in awaited:
            # A job that is gone will not finish any more; `get` says so to whoever asked.
            if job_id not in statuses or statuses[job_id] in FINISHED:
                self.finished(job_id)
