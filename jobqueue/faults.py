"""Failing on purpose, so that people can see their own retries, alerts and dead letters at work.

Only where `JOBQUEUE_FAULTS` is on: then `FaultyExecution` stands in for `execution.execute`, and a job's `fault`, or
else that of the setting `JOBQUEUE_FAULT`, decides how its attempts fail. Elsewhere none of this is called.

Whether an attempt fails by chance depends on the process's seed, the job and the number of the attempt, not on
what else runs at that time.
"""

from __future__ import annotations

import asyncio
from random import Random

import structlog
from pydantic import ValidationError

from jobqueue.context import TaskContext
from jobqueue.execution import execute
from jobqueue.job import Fault, JobView, JsonValue
from jobqueue.outcome import Failure, Outcome, Retry
from jobqueue.tasks import Task
from jobqueue.threads import ThreadRunner

log = structlog.get_logger(__name__)


class AttemptLost(Exception):
    """The attempt is over, and nothing is to be written about it: its lease will expire."""


class FaultyExecution:
    """Runs attempts as `execute` does, but for those that are to fail."""

    def __init__(self, default: Fault | None, *, random: Random) -> None:
        """`default` is for jobs that have no fault of their own."""
        self._default = default
        self._seed = random.getrandbits(64)

    async def execute(self, task: Task, context: TaskContext, payload: JsonValue, *, threads: ThreadRunner) -> Outcome:
        """Run one attempt, after the delay of its fault. Raises `AttemptLost`, and `CancelledError` as there."""
        fault = self._fault_of(context.job)
        if fault is None:
            return await execute(task, context, payload, threads=threads)
        await asyncio.sleep(fault.delay_seconds)
        fails = self._fails(fault, context.job)
        if fails and fault.crash:
            raise AttemptLost
        if fails and not fault.lose_lease:
            return Retry(Failure("InjectedFault", f"attempt {context.attempt} failed on purpose"))
        outcome = await execute(task, context, payload, threads=threads)
        if fails:
            raise AttemptLost
        return outcome

    def _fault_of(self, job: JobView) -> Fault | None:
        if job.fault is None:
            return self._default
        try:
            # Leniently: people may have typed it into mongosh, where every number is a double.
            return Fault.model_validate(job.fault, strict=False)
        except ValidationError:
            log.warning("fault not understood", job_id=job.id)
            return None

    def _fails(self, fault: Fault, job: JobView) -> bool:
        chance = Random(f"{self._seed} {job.id} {job.retry_count}").random()
        return fault.fails(job.retry_count, chance=chance)
