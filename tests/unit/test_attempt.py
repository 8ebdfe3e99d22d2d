"""What one attempt knows before it runs, and that nothing is left of it afterwards."""

from __future__ import annotations

import asyncio
import gc
import math

import pytest
from observers import settle

from jobqueue.attempt import Attempt, Ending, Executor, Stop
from jobqueue.context import TaskContext
from jobqueue.job import MAX_TIMEOUT_SECONDS, Claim, Job, JobId, JsonValue, LeaseId
from jobqueue.outcome import Completed, Retry
from jobqueue.retry import BackoffPolicy
from jobqueue.tasks import Registry


@pytest.fixture
async def executor() -> Executor:
    registry = Registry()

    @registry.task("quick", timeout=5)
    async def quick() -> None: ...

    @registry.task("telling")
    async def telling(context: TaskContext) -> JsonValue:
        context.log.info("here")
        await context.progress(50)
        return context.payload

    @registry.task("catching")
    async def catching() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "as far as it got"
        raise AssertionError("nothing sets the event")

    @registry.task("failing")
    async def failing(payload: JsonValue) -> None:
        await asyncio.sleep(0)
        raise ValueError(payload)

    @registry.task("blocking")
    def blocking(payload: JsonValue) -> None:
        raise ValueError(payload)

    return Executor(
        registry,
        timeout_seconds=1800,
        backoff=BackoffPolicy(),
        on_progress=lambda claim, progress: None,
        on_log=lambda job_id, attempt, level, message, fields: None,
        on_slot_free=lambda: None,
    )


@pytest.mark.parametrize(
    ("job_type", "own", "limit"),
    [
        ("quick", 2.0, 2.0),  # the job's own goes before its task's
        ("quick", None, 5.0),  # its task's before the setting
        ("other", None, 1800.0),
        # Typed into mongosh: no time, and more than a clock can hold. Neither may break the claim it is part of.
        ("quick", 0.0, 5.0),
        ("quick", -3.0, 5.0),
        ("other", math.nan, 1800.0),
        ("other", 1e300, MAX_TIMEOUT_SECONDS),
        ("other", math.inf, MAX_TIMEOUT_SECONDS),
    ],
)
async def test_the_limit_of_an_attempt(executor: Executor, job_type: str, own: float | None, limit: float) -> None:
    assert executor.timeout_seconds(Job(id=JobId("a"), type=job_type, timeout_seconds=own)) == limit


@pytest.mark.parametrize(
    ("why", "ending"),
    [
        (Stop.TIMED_OUT, Completed("as far as it got")),
        (Stop.CANCEL_REQUESTED, Completed("as far as it got")),
        (Stop.SHUTDOWN, Completed("as far as it got")),
        (Stop.LEASE_LOST, None),
    ],
)
async def test_a_task_that_catches_its_stop_ends_in_its_own_way(
    executor: Executor, why: Stop, ending: Ending | None
) -> None:
    attempt = Attempt(Job(id=JobId("a"), type="catching"), Claim(JobId("a"), LeaseId("L")), 0.0, 1800.0)
    performing = asyncio.create_task(executor.perform(attempt))
    await settle()

    attempt.stop(why)

    assert await asyncio.wait_for(performing, 30) == ending


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("job_type", "ending"), [("quick", Completed), ("telling", Completed), ("failing", Retry), ("blocking", Retry)]
)
async def test_what_is_over_does_not_wait_for_the_garbage_collector(
    executor: Executor, job_type: str, ending: type[Completed | Retry]
) -> None:
    """It comes once in thousands of jobs (`process.calm_the_garbage_collector`), each with its payload."""
    job = Job(id=JobId("a"), type=job_type, payload="a payload", retry_count=1, max_retries=3)
    attempt = Attempt(job, Claim(job.id, LeaseId("l")), 0.0, 60.0)

    assert type(await executor.perform(attempt)) is ending

    del attempt
    assert not [one for one in gc.get_objects() if type(one) is Attempt and one.job is job]
    executor.close()
