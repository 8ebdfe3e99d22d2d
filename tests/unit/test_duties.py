"""What all duties of maintenance have in common."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from random import Random
from typing import cast

from hand_clock import HandClock
from structlog.testing import capture_logs

from jobqueue.errors import Unavailable
from jobqueue.job import Status
from jobqueue.maintenance import PRUNE_SECONDS, Duty, Pruner, Retention
from jobqueue.repository import JobRepository
from jobqueue.settings import Settings

PATIENCE = 30


class Failing(Duty):
    """Fails in several ways, and then does its work."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(seconds=0.001, random=Random(1))
        self._errors = list(errors)
        self.done = asyncio.Event()

    async def step(self) -> bool:
        if self._errors:
            raise self._errors.pop()
        self.done.set()
        return False


class Full:
    """Has something to delete each time, and is asked for nothing else."""

    async def prune(self, status: Status, *, finished_before: datetime, limit: int) -> int:
        return 0

    async def prune_excess(self, *, keep: int, limit: int) -> int:
        return 3


async def test_that_jobs_are_deleted_before_their_time_is_said_once() -> None:
    retention = Retention(completed=timedelta(days=1), failed=timedelta(days=30), most=10)
    pruner = Pruner(cast(JobRepository, Full()), retention=retention, clock=HandClock(), random=Random(1))

    with capture_logs() as logs:
        await pruner.step()
        await pruner.step()

    assert [(line["log_level"], line["kept"]) for line in logs] == [("warning", 10)]


def test_how_soon_old_jobs_are_deleted_is_said_where_their_retention_is_set() -> None:
    said = Settings.model_fields["retention_completed_seconds"].description

    assert said is not None
    assert said.endswith(f"within {PRUNE_SECONDS:.0f} seconds")


async def test_a_step_that_fails_is_not_the_last() -> None:
    duty = Failing(Unavailable("away"), TypeError("unhashable type: 'dict'"), OverflowError())
    running = asyncio.create_task(duty.run())

    async with asyncio.timeout(PATIENCE):
        await duty.done.wait()

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
