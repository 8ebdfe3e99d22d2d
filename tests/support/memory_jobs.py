"""A store in memory: only what the HTTP layer needs to be seen working, and ways to break it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jobqueue.errors import DuplicateJob, IllegalMove, JobNotFound, JobQueueError
from jobqueue.following import Follower, Followers
from jobqueue.job import FINISHED, WAITING, Candidate, Job, JobId, LogLine, Status
from jobqueue.repository import JobFilter, JobRepository, Page, QueueCount, Revision, Totals, WorkerRecord


class MemoryJobs:
    """Jobs in a dict. `broken` is raised by whatever is asked next and later, while it is set.

    `looks` counts how often many jobs were looked at at once."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.broken: Exception | None = None
        self.lines: dict[str, list[LogLine]] = {}
        self.live_workers: list[WorkerRecord] = []
        self.holding: asyncio.Event | None = None
        self.counts = 0
        self.meters: dict[str, int] = {}
        self.looks = 0

    def put(self, job_id: str, **changes: Any) -> Job:
        """Make a job look as if the engine had moved it."""
        self.jobs[job_id] = self.jobs[job_id].model_copy(update=changes)
        return self.jobs[job_id]

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Job | JobQueueError]:
        if self.holding is not None:
            await self.holding.wait()
        return [self._insert(job) for job in jobs]

    async def get(self, job_id: str) -> Job:
        self._fail_when_broken()
        if job_id not in self.jobs:
            raise JobNotFound(job_id)
        return self.jobs[job_id]

    async def get_many(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        self._fail_when_broken()
        self.looks += 1
        return {job_id: self.jobs[job_id] for job_id in job_ids if job_id in self.jobs}

    async def revisions(self, job_ids: Collection[str]) -> Mapping[str, Revision]:
        self.looks += 1
        known = [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]
        return {job.id: Revision(job.status, job.updated_at) for job in known}

    async def count_by_status(self) -> Mapping[Status, int]:
        self._fail_when_broken()
        self.looks += 1
        return {status: sum(job.status is status for job in self.jobs.values()) for status in Status}

    async def list(self, which: JobFilter, *, before: int | None, limit: int, max_bytes: int) -> Page:
        self._fail_when_broken()
        found = [job for job in self._newest_first(which) if before is None or job.seq < before]
        return Page(found[:limit], found[limit - 1].seq if len(found) > limit else None)

    async def count(self, status: Status, *, limit: int) -> int:
        return min(limit, sum(job.status is status for job in self.jobs.values()))

    async def count_waiting(self, limit: int) -> int:
        self.counts += 1
        self._fail_when_broken()
        return min(limit, sum(job.status in WAITING for job in self.jobs.values()))

    async def count_waiting_in(self, queues: Sequence[str], limit: int) -> Sequence[int]:
        self.counts += 1
        self._fail_when_broken()
        waiting = Counter(job.queue for job in self.jobs.values() if job.status in WAITING)
        return [min(limit, waiting[queue]) for queue in queues]

    async def read_meter(self, name: str) -> int:
        return self.meters.get(name, 0)

    async def move_meter(self, name: str, *, seen: int, to: int) -> bool:
        if self.meters.get(name, 0) != seen:
            return False
        self.meters[name] = to
        return True

    async def queues(self) -> Sequence[QueueCount]:
        self._fail_when_broken()
        return [self._count_queue(name) for name in sorted({job.queue for job in self.jobs.values()})]

    async def totals(self) -> Totals:
        self._fail_when_broken()
        keys = sum(job.idempotency_key is not None for job in self.jobs.values())
        return Totals(await self.count_by_status(), dict.fromkeys(FINISHED, 0), retried=0, idempotency_keys=keys)

    async def logs(self, job_id: str) -> Sequence[LogLine]:
        return self.lines.get(job_id, [])

    async def cancel(self, job_id: str, *, at: datetime) -> Job:
        job = await self.get(job_id)
        if job.status in FINISHED:
            raise IllegalMove(job_id, "cancel", job.status)
        if job.status in WAITING:
            return self.put(job_id, status=Status.CANCELLED, finished_at=at)
        return self.put(job_id, cancel_requested_at=job.cancel_requested_at or at)

    async def redrive(self, job_id: str, *, at: datetime) -> Job:
        job = await self.get(job_id)
        if job.status not in (Status.FAILED, Status.CANCELLED):
            raise IllegalMove(job_id, "redrive", job.status)
        return self.put(job_id, status=Status.PENDING, retry_count=0, run_at=at, redrives=(job.redrives or 0) + 1)

    async def redrive_many(self, which: JobFilter, *, at: datetime, limit: int) -> Sequence[Candidate]:
        return [Candidate.of(await self.redrive(job.id, at=at)) for job in self._newest_first(which)[:limit]]

    async def delete_dead_letters(self, which: JobFilter, *, limit: int) -> int:
        found = self._newest_first(which)[:limit]
        for job in found:
            del self.jobs[job.id]
        return len(found)

    async def delete(self, job_id: str) -> None:
        job = await self.get(job_id)
        if job.status is Status.PROCESSING:
            raise IllegalMove(job_id, "delete", job.status)
        del self.jobs[job_id]

    async def workers(self, *, since: datetime) -> Sequence[WorkerRecord]:
        return self.live_workers

    async def check(self) -> None:
        self._fail_when_broken()

    def _insert(self, job: Job) -> Job | JobQueueError:
        if isinstance(self.broken, JobQueueError):
            return self.broken
        self._fail_when_broken()
        if job.id in self.jobs:
            return DuplicateJob("id", job.id, existing=self.jobs[job.id])
        for other in self.jobs.values():
            if job.idempotency_key is not None and job.idempotency_key == other.idempotency_key:
                return DuplicateJob("idempotencyKey", job.idempotency_key, existing=other)
        self.jobs[job.id] = job
        return job

    def _fail_when_broken(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _newest_first(self, which: JobFilter) -> Sequence[Job]:
        jobs = sorted(self.jobs.values(), key=lambda job: -job.seq)
        return [job for job in jobs if _matches(job, which)]

    def _count_queue(self, name: str) -> QueueCount:
        jobs = [job for job in self.jobs.values() if job.queue == name]
        pending = [job.run_at for job in jobs if job.status is Status.PENDING]
        return QueueCount(
            name=name,
            pending=len(pending),
            scheduled=sum(job.status is Status.SCHEDULED for job in jobs),
            processing=sum(job.status is Status.PROCESSING for job in jobs),
            oldest_pending_at=min(pending, default=None),
        )


def _matches(job: Job, which: JobFilter) -> bool:
    wanted = {"status": which.status, "type": which.type, "queue": which.queue}
    return (
        all(value is None or getattr(job, name) == value for name, value in wanted.items())
        and (which.tag is None or which.tag in (job.tags or ()))
        and (which.created_after is None or job.created_at >= which.created_after)
        and (which.created_before is None or job.created_at < which.created_before)
    )


class SilentDispatcher:
    """Takes everything and runs nothing; remembers what it was asked to stop."""

    has_workers = False

    def __init__(self) -> None:
        self.interrupted: list[JobId] = []

    def offer(self, jobs: Sequence[Job]) -> None:
        pass

    def offer_candidates(self, candidates: Sequence[Candidate]) -> None:
        pass

    def interrupt(self, job_id: JobId) -> None:
        self.interrupted.append(job_id)


class ObservedFollowers(Followers):
    """Tells when somebody begins to follow."""

    def __init__(self, jobs: JobRepository) -> None:
        super().__init__(jobs)
        self.somebody_follows = asyncio.Event()

    @contextlib.contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        with super().follow(job_id) as follower:
            self.somebody_follows.set()
            yield follower
