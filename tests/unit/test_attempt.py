"""What one attempt knows before it runs."""

from __future__ import annotations

import math

import pytest

from jobqueue.attempt import Executor
from jobqueue.job import MAX_TIMEOUT_SECONDS, Job, JobId
from jobqueue.retry import BackoffPolicy
from jobqueue.tasks import Registry


@pytest.fixture
async def executor() -> Executor:
    registry = Registry()

    @registry.task("quick", timeout=5)
    async def quick() -> None: ...

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
