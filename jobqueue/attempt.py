"""Runs one attempt: from a claimed job to the outcome of its task. Neither claims nor writes anything.

`perform` never raises: whatever user code does, and however the attempt is stopped, an ending comes back, or
None when the lease is lost and nothing may be written any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from jobqueue.clock import Clock
from jobqueue.context import TaskContext
from jobqueue.deadlines import Deadlines
from jobqueue.execution import execute
from jobqueue.faults import AttemptLost
from jobqueue.job import MAX_TIMEOUT_SECONDS, Claim, Job, JobId, Progress
from jobqueue.outcome import Cancelled, Failed, Failure, Outcome, Retry
from jobqueue.retry import BackoffPolicy
from jobqueue.tasks import Registry
from jobqueue.threads import ThreadRunner

Execute = Callable[..., Awaitable[Outcome]]
"""`execution.execute`, or what stands in for it."""


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt was given back because the process stops. It does not count."""


Ending = Outcome | Released
"""What becomes of an attempt: what its task says, or that it is given back because the process stops."""


class Stop(Enum):
    """Why an attempt was stopped."""

    TIMED_OUT = "timed out"
    LEASE_LOST = "lease lost"
    CANCEL_REQUESTED = "cancel requested"
    SHUTDOWN = "shutdown"


@dataclass(eq=False, slots=True)
class Attempt:
    """One run of one job, from the claim until its outcome is acknowledged."""

    job: Job
    claim: Claim
    started: float
    """When it was claimed, in seconds of the monotonic clock."""
    limit_seconds: float
    stopped: Stop | None = None
    context: TaskContext | None = field(default=None, repr=False)
    task: asyncio.Task[object] | None = field(default=None, repr=False)
    """Set only while user code runs, so that a stop never hits the writing of the outcome."""

    def stop(self, why: Stop) -> None:
        """Stop the user's code, if it has not ended. A lost lease outweighs every other reason, and every other one
        outweighs that its time is over."""
        if self.stopped in (None, Stop.TIMED_OUT) or why is Stop.LEASE_LOST:
            self.stopped = why
        if self.task is not None:
            self.task.cancel()
            if self.context is not None:
                self.context.interrupt()

    def log_fields(self, clock: Clock) -> dict[str, object]:
        """What every log line about this attempt says."""
        return {
            "job_id": self.job.id,
            "type": self.job.type,
            "attempt": self.job.retry_count,
            "duration_seconds": round(clock.monotonic() - self.started, 6),
        }


class Executor:
    """Performs attempts, many at once, and counts the slots they take."""

    def __init__(
        self,
        registry: Registry,
        *,
        timeout_seconds: float,
        backoff: BackoffPolicy,
        execute: Execute = execute,
        on_progress: Callable[[Claim, Progress], None],
        on_log: Callable[[JobId, int, str, object, Mapping[str, Any]], None],
        on_slot_free: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._timeout_seconds = timeout_seconds
        self._backoff = backoff
        self._execute = execute
        self._on_progress = on_progress
        self._on_log = on_log
        self._threads = ThreadRunner(on_return=on_slot_free)
        self._deadlines = Deadlines[Attempt](lambda attempt: attempt.stop(Stop.TIMED_OUT))
        self._performing = 0

    @property
    def performing(self) -> int:
        """How many attempts run right now."""
        return self._performing

    @property
    def slots_taken(self) -> int:
        """Attempts that run, and threads that still run although their attempt is over."""
        return self._performing + self._threads.lingering

    def timeout_seconds(self, job: Job) -> float:
        """The limit of one attempt: the job's own, else its task's, else the setting.

        What was typed into mongosh may be no length of time at all, or one that a clock cannot hold."""
        own = job.timeout_seconds if job.timeout_seconds is not None and job.timeout_seconds > 0 else None
        task = self._registry.find(job.type)
        of_task = task.timeout_seconds if task is not None else None
        return min(own or of_task or self._timeout_seconds, MAX_TIMEOUT_SECONDS)

    def backoff(self, job: Job) -> BackoffPolicy:
        """How long a job waits after a failed attempt: its own back-off, else its task's, else the setting."""
        task = self._registry.find(job.type)
        of_task = task.backoff if task is not None else None
        return (of_task or self._backoff).with_own(job.backoff)

    async def perform(self, attempt: Attempt) -> Ending | None:
        """Run the task of a claimed job to its end."""
        self._performing += 1
        try:
            ending = await self._perform(attempt)
        finally:
            self._performing -= 1
        return None if attempt.stopped is Stop.LEASE_LOST else ending

    def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()
        self._deadlines.close()

    async def _perform(self, attempt: Attempt) -> Ending:
        if attempt.stopped is not None:
            return _stopped(attempt)
        if attempt.job.retry_count > attempt.job.max_retries:
            return Failed(Failure("AttemptsUsedUp", "its attempts were used up before it was claimed"))
        return await self._run(attempt)

    async def _run(self, attempt: Attempt) -> Ending:
        context = TaskContext(
            attempt.job,
            on_progress=partial(self._on_progress, attempt.claim),
            on_log=partial(self._on_log, attempt.job.id, attempt.job.retry_count),
        )
        attempt.context, attempt.task = context, asyncio.current_task()
        task = self._registry.task_for(attempt.job.type)
        self._deadlines.begin(attempt, attempt.limit_seconds)
        try:
            return await self._execute(task, context, attempt.job.payload, threads=self._threads)
        except asyncio.CancelledError:
            return _stopped(attempt)
        except AttemptLost:
            attempt.stopped = Stop.LEASE_LOST
            return Released()
        finally:
            attempt.task = None
            self._deadlines.end(attempt, attempt.limit_seconds)


def _stopped(attempt: Attempt) -> Ending:
    match attempt.stopped:
        case Stop.TIMED_OUT:
            return Retry(Failure("TimeoutError", f"the attempt took longer than {attempt.limit_seconds:g} s"))
        case Stop.SHUTDOWN | Stop.LEASE_LOST:
            return Released()
        case Stop.CANCEL_REQUESTED:
            return Cancelled()
        case None:
            return Retry(Failure("CancelledError", "the task was cancelled from within"))
