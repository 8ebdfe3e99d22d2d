"""A repository under test, with the raw collection beside it and a clock that stands still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faults import Faults
from hand_clock import HandClock

from jobqueue.clock import Identifiers
from jobqueue.errors import JobQueueError
from jobqueue.job import AttemptError, Claim, Job, JobId, Lease, LeaseId, Status, WorkerId
from jobqueue.mongo import MongoJobRepository

NOW = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)
LOGS_KEPT = timedelta(days=100 * 365)
"""So long because `NOW` is in the past, and what expires does so by the server's clock."""
WORKER = WorkerId("worker-1")
BOOM = AttemptError(attempt=1, at=NOW, type="Boom", message="it broke", worker_id=WORKER)


class Bench:
    """What a contract test works with. `raw` is the collection as the driver has it."""

    def __init__(self, jobs: MongoJobRepository, raw: Any, *, backend: str, faults: Faults, clock: HandClock) -> None:
        self.jobs = jobs
        self.raw = raw
        self.backend = backend
        self.faults = faults
        self.clock = clock
        self.ids = Identifiers()

    def new(self, **fields: Any) -> Job:
        """A job as the service makes it, due now."""
        now = self.clock.now()
        made = {
            "id": self.ids.job_id(now),
            "run_at": now,
            "created_at": now,
            "updated_at": now,
            "seq": self.ids.seq(now),
            "insert_id": self.ids.token(),
        }
        return Job(**{**made, **fields})

    async def add(self, **fields: Any) -> Job:
        """A stored job."""
        return await insert_one(self.jobs, self.new(**fields))

    async def add_many(self, count: int, **fields: Any) -> list[Job]:
        answers = await self.jobs.insert_many([self.new(**fields) for _ in range(count)])
        return [only_job(answer) for answer in answers]

    def lease(self, *, worker_id: WorkerId = WORKER) -> Lease:
        """A fresh lease."""
        return Lease(id=self.ids.lease_id(), worker_id=worker_id, expires_at=self.clock.now() + LEASE)

    async def claim(self, *jobs: Job) -> list[Claim]:
        """Claims of these jobs, all under one lease."""
        lease = self.lease()
        won = await self.jobs.claim([job.id for job in jobs], lease, at=self.clock.now())
        assert {job.id for job in won.jobs} == {job.id for job in jobs}
        return [Claim(job.id, lease.id) for job in jobs]

    async def running(self, **fields: Any) -> Claim:
        """The claim of a new job that runs."""
        (claim,) = await self.claim(await self.add(**fields))
        return claim

    async def put(self, **document: Any) -> Any:
        """A document made by hand; returns its id."""
        return (await self.raw.insert_one(document)).inserted_id

    async def in_status(self, status: Status, **fields: Any) -> Claim:
        """A job that stands in `status`, with a lease where that belongs; the claim names lease `L` anyway."""
        job = self.new()
        lease = {"lease": {"id": "L", "workerId": WORKER, "expiresAt": self.clock.now() + LEASE}}
        finished = {"finishedAt": self.clock.now(), "result": 1, "lastOutcome": {"leaseId": "old", "kind": "fail"}}
        more = (
            lease if status is Status.PROCESSING else finished if status in ("completed", "failed", "cancelled") else {}
        )
        await insert_one(self.jobs, job)
        changes = {"status": status.value, "retryCount": 1 if status is Status.PROCESSING else 0, **more, **fields}
        await self.raw.update_one({"_id": job.id}, {"$set": changes})
        return Claim(job.id, LeaseId("L"))

    async def change_lease(self, claim: Claim, **fields: Any) -> None:
        """Change the lease behind its owner's back. (As a whole: mongomock's update_many lets documents share it.)"""
        lease = (await self.stored(claim.job_id))["lease"]
        await self.raw.update_one({"_id": claim.job_id}, {"$set": {"lease": {**lease, **fields}}})

    async def expire(self, claim: Claim) -> None:
        """Let the lease be over since a second ago."""
        await self.change_lease(claim, expiresAt=self.clock.now() - SECOND)

    async def stored(self, job_id: str) -> Mapping[str, Any]:
        """The document as it stands."""
        found: Mapping[str, Any] = await self.raw.find_one({"_id": job_id})
        assert found is not None
        return found

    async def status(self, job_id: str) -> Status:
        return (await self.jobs.get(job_id)).status

    async def candidate_ids(self, *queues: str, limit: int = 100) -> list[JobId]:
        window = await self.jobs.candidates(queues or ["default"], after=None, limit=limit)
        return [candidate.id for candidate in window.candidates]


def only_job(answer: Job | JobQueueError) -> Job:
    assert isinstance(answer, Job), answer
    return answer


async def insert_one(jobs: MongoJobRepository, job: Job) -> Job:
    """The stored job. Raises what it was refused for."""
    [answer] = await jobs.insert_many([job])
    if isinstance(answer, JobQueueError):
        raise answer
    return answer


def ids(jobs: Sequence[Job]) -> list[JobId]:
    return [job.id for job in jobs]


def chosen_backend(request: pytest.FixtureRequest) -> str:
    """The store that a fixture is parametrised with; skips where it is a MongoDB and none was named."""
    name = str(request.param)
    if name == "mongodb":
        request.getfixturevalue("mongodb_uri")
    return name
