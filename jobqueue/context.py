"""What a running task sees of its job."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cached_property
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from jobqueue.job import JobView, JsonValue, Progress, cut
from jobqueue.task_logger import LOGGER_NAME, Keep, task_logger

MAX_PROGRESS_MESSAGE_BYTES = 1024


class TaskContext:
    """One attempt at one job. May be used from the thread of a plain function as well."""

    def __init__(
        self,
        job: JobView,
        *,
        on_progress: Callable[[Progress], None],
        on_log: Keep | None = None,
    ) -> None:
        """`on_progress` is called by each `progress()`, and `on_log` for each line of `log`, from whatever thread
        that is called on; they must neither block nor fail, and are what keeps the writes to one a second."""
        self.job = job
        self._on_progress = on_progress
        self._on_log = on_log
        self._interrupted = False

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self.job.retry_count

    @property
    def payload(self) -> JsonValue:
        """What the job was given. A task without an annotated payload gets this very object: it changes it here too."""
        return self.job.payload

    @property
    def cancelled(self) -> bool:
        """Whether this attempt is not wanted any more: the job was cancelled, ran out of time, lost its
        lease, or the process is stopping. A coroutine is cancelled then; a plain function should look here
        now and then, because no thread can be stopped from outside."""
        return self._interrupted

    @cached_property
    def log(self) -> FilteringBoundLogger:
        """A logger whose lines carry the job's id, type and attempt, and are kept with the job."""
        return self._bound(task_logger(self._on_log)) if self._on_log is not None else self.process_log

    @cached_property
    def process_log(self) -> FilteringBoundLogger:
        """The same, but only in the log of the process. For the engine, not for tasks."""
        return self._bound(structlog.get_logger(LOGGER_NAME))

    def _bound(self, logger: FilteringBoundLogger) -> FilteringBoundLogger:
        return logger.bind(job_id=self.job.id, type=self.job.type, attempt=self.attempt)

    def progress(self, percent: float | None = None, message: str | None = None) -> NothingToAwait:
        """Show how far the job is: `percent` is brought to 0-100, the message cut to 1 KiB.

        Takes effect at once, with `await` in front or without. What is stored is the newest, once a second."""
        self._on_progress(
            Progress(
                percent=None if percent is None else min(max(0.0, float(percent)), 100.0),
                message=None if message is None else cut(message, max_bytes=MAX_PROGRESS_MESSAGE_BYTES),
            )
        )
        return NothingToAwait()

    def interrupt(self) -> None:
        """From now on `cancelled` is true. For the engine, not for tasks."""
        self._interrupted = True


class NothingToAwait:
    """Lets one method serve coroutines (`await context.progress(50)`) and plain functions alike."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield
