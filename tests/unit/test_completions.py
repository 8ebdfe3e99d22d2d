"""Completions that are handed over together, and what becomes of one that is not acknowledged there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from wired_pool import Wire, waiting, wired_pool

from jobqueue.errors import OutcomeUnknown
from jobqueue.job import Claim, JobId, JsonValue
from jobqueue.tasks import Registry
from jobqueue.worker import WorkerPool


class Doubtful(Wire):
    """Does not acknowledge the first completion that it is handed, until that comes by itself and may be."""

    def __init__(self, count: int) -> None:
        super().__init__(waiting(count))
        self.together: list[int] = []
        self.came_alone = asyncio.Event()
        self.may_be_written = asyncio.Event()
        self.alone: list[JobId] = []

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        self.together.append(len(completed))
        written = await super().complete_many(completed[1:], at=at)
        return [OutcomeUnknown(completed[0][0].job_id, "no answer"), *written]

    async def complete(self, claim: Claim, result: JsonValue | None, *, at: datetime) -> None:
        self.alone.append(claim.job_id)
        self.came_alone.set()
        await self.may_be_written.wait()


async def test_a_completion_that_is_not_acknowledged_with_others_is_repeated_and_its_lease_kept() -> None:
    registry, wire = Registry(), Doubtful(10)

    @registry.task("noop")
    async def noop() -> None: ...

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(wire.came_alone.wait(), 30)

    assert wire.together == [10]
    assert [claim.job_id for claim in pool.running] == wire.alone
    await _end(pool, poller, wire)
    assert not pool.running


async def _end(pool: WorkerPool, poller: asyncio.Task[None], wire: Doubtful) -> None:
    wire.may_be_written.set()
    poller.cancel()
    await pool.stop(grace_seconds=10, flush_seconds=10)
