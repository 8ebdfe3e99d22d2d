"""What tasks log, on its way to the job: taken in any thread at once, written in batches off the hot path.

Lines are held, at most as many as are kept of a job anyway, until the writer comes (`PAUSE_SECONDS`) or the attempt's
outcome is about to be written. They are a courtesy: MongoDB being away costs lines, never an outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

from jobqueue.clock import Clock
from jobqueue.errors import JobQueueError
from jobqueue.job import MAX_LOG_BYTES, MAX_LOG_LINES, JobId, LogLine
from jobqueue.log_lines import line_bytes, make_line
from jobqueue.repository import JobRepository

PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class JobLog:
    """The lines of running attempts that are not written yet. Belongs to one event loop."""

    def __init__(self, jobs: JobRepository, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._tails: dict[JobId, _Tail] = {}
        self._writing: dict[JobId, asyncio.Task[None]] = {}
        self._writer: asyncio.Task[None] | None = None

    def keep(self, job_id: JobId, attempt: int, level: str, message: object, fields: Mapping[str, Any]) -> None:
        """Take one line. May be called in any thread; never blocks, never fails."""
        line = make_line(at=self._clock.now(), attempt=attempt, level=level, message=message, fields=fields)
        with self._lock:
            first = not self._tails
            self._tails.setdefault(job_id, _Tail()).add(line)
        if first:
            # A thread may outlive its attempt, and then the loop.
            with contextlib.suppress(RuntimeError):
                # Not in the context of the task that happens to be first: its `pymongo.timeout` would hold for all.
                self._loop.call_soon_threadsafe(self._wake_writer, context=self._context)

    def holds(self, job_id: JobId) -> bool:
        """Whether something that this job has logged is not written yet."""
        return job_id in self._tails or job_id in self._writing

    async def flush(self, job_id: JobId) -> None:
        """Return when what this job has logged so far is written, or is known to be lost."""
        for _ in range(2):  # what is being written, and what came since
            if job_id not in self._writing and job_id in self._tails:
                self._write(job_id)
            if job_id in self._writing:
                await asyncio.wait([self._writing[job_id]])

    async def aclose(self) -> None:
        """Write what there is, and begin nothing more."""
        if self._writer is not None:
            self._writer.cancel()
        self._write_all()
        while self._writing:
            await asyncio.wait(self._writing.values())

    def _wake_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_now_and_then(), name="job logs")

    async def _write_now_and_then(self) -> None:
        while self._tails:
            await asyncio.sleep(PAUSE_SECONDS)
            self._write_all()

    def _write_all(self) -> None:
        for job_id in list(self._tails):
            if job_id not in self._writing:
                self._write(job_id)

    def _write(self, job_id: JobId) -> None:
        with self._lock:
            lines = self._tails.pop(job_id).lines()
        task = self._writing[job_id] = asyncio.create_task(self._append(job_id, lines))
        task.add_done_callback(lambda _: self._writing.pop(job_id))

    async def _append(self, job_id: JobId, lines: list[LogLine]) -> None:
        try:
            await self._jobs.append_logs(job_id, lines)
        except JobQueueError as error:
            log.warning("job log lost", job_id=job_id, lines=len(lines), reason=str(error))


class _Tail:
    """The newest lines within the bounds of what is kept."""

    def __init__(self) -> None:
        self._lines: deque[tuple[LogLine, int]] = deque()
        self._bytes = 0

    def add(self, line: LogLine) -> None:
        size = line_bytes(line)
        self._lines.append((line, size))
        self._bytes += size
        while len(self._lines) > MAX_LOG_LINES or self._bytes > MAX_LOG_BYTES:
            self._bytes -= self._lines.popleft()[1]

    def lines(self) -> list[LogLine]:
        return [line for line, _ in self._lines]
