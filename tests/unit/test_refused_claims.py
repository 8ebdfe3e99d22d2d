"""A database that reads but does not write, as with a full disk: claims are refused at once, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from simulated.loop import in_virtual_time
from wired_pool import Wire, end, waiting, wired_pool

from jobqueue.errors import Unavailable
from jobqueue.job import JobId, Lease, LeaseId
from jobqueue.repository import Claimed
from jobqueue.tasks import Registry
from jobqueue.worker import CLAIMS_IN_FLIGHT, LAST_CLAIM_PAUSE_SECONDS

SECONDS = 60


class ReadOnly(Wire):
    """Takes no claim until it may."""

    def __init__(self, count: int) -> None:
        super().__init__(waiting(count))
        self.takes_claims = False
        self.claims = 0

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self.claims += 1
        assert self.claims < 1_000, "asked without a pause"  # or time would stand still
        if not self.takes_claims:
            raise Unavailable("no space left")
        return await super().claim(job_ids, lease, at=at)

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        return Claimed([])


def test_a_server_that_refuses_claims_is_asked_now_and_then_and_its_jobs_run_when_it_takes_them() -> None:
    async def scene() -> None:
        registry, wire = Registry(), ReadOnly(150)

        @registry.task("noop")
        async def noop() -> None: ...

        pool = wired_pool(wire, registry)
        poller = asyncio.create_task(pool.poller.run())
        await asyncio.sleep(SECONDS)
        # At least half of the longest pause lies between two, but for the first ones.
        assert 10 < wire.claims <= CLAIMS_IN_FLIGHT * (SECONDS / (LAST_CLAIM_PAUSE_SECONDS / 2) + 5)

        wire.takes_claims = True
        await wire.all_completed.wait()
        await end(pool, poller)

    in_virtual_time(scene)
