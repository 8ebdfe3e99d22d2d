"""What the jobs of a simulation do: each follows a plan, one step for each time that it is begun."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from simulated.history import History

from jobqueue.job import Job
from jobqueue.tasks import PermanentFailure, Registry, Snooze, TaskContext

TYPE = "planned"


@dataclass(frozen=True, slots=True)
class Step:
    """What one attempt does: wait, then end in one of the ways. `stubborn` is for how many seconds it goes on
    after it was cancelled."""

    end: str = "complete"
    seconds: float = 0.0
    stubborn: float = 0.0
    progress: bool = False
    result: bool = True


class Work:
    """The task of one world; its attempts are counted over all processes."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._begun: Counter[str] = Counter()
        self._attempts: set[tuple[str, str]] = set()

    def registry(self, process: str) -> Registry:
        """The tasks as one process has them."""
        registry = Registry()

        @registry.task(TYPE)
        async def planned(context: TaskContext, payload: Any) -> Any:
            return await self._attempt(process, context, payload["plan"])

        return registry

    def has_begun(self, lease: str, job_id: str) -> bool:
        """Whether the attempt under this lease got as far as user code."""
        return (lease, job_id) in self._attempts

    async def _attempt(self, process: str, context: TaskContext, plan: list[dict[str, Any]]) -> Any:
        assert isinstance(context.job, Job)
        assert context.job.lease is not None
        job_id, lease = context.job.id, context.job.lease.id
        self._begun[job_id] += 1
        step = Step(**plan[min(self._begun[job_id], len(plan)) - 1])
        self._attempts.add((lease, job_id))
        self._history.add(process, "begins", job=job_id, lease=lease, attempt=context.attempt)
        how = "interrupted"
        try:
            await self._wait(step, context)
            how = step.end
        finally:
            self._history.add(process, "ends", job=job_id, lease=lease, how=how)
        return _end(step, {"by": process, "lease": lease} if step.result else None)

    async def _wait(self, step: Step, context: TaskContext) -> None:
        if step.progress:
            context.progress(50.0, "half of it")
        try:
            await asyncio.sleep(step.seconds)
        except asyncio.CancelledError:
            if not step.stubborn:
                raise
            await asyncio.sleep(step.stubborn)


def _end(step: Step, result: Any) -> Any:
    match step.end:
        case "complete":
            return result
        case "retry":
            raise RuntimeError("not this time")
        case "fail":
            raise PermanentFailure("never")
        case "snooze":
            raise Snooze(1.0)
        case _:
            raise AssertionError(step.end)


def payload_of(plan: list[Step]) -> dict[str, Any]:
    """The payload of a job with this plan."""
    return {"plan": [asdict(step) for step in plan]}
