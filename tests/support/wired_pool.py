"""A worker pool whose store is in memory: documents come as BSON, completions go as far as the driver's door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import bson
from bson.codec_options import CodecOptions

from jobqueue.clock import Clock, Identifiers, ServerClock
from jobqueue.job import Candidate, Claim, Job, JobId, JsonValue, Lease, Status, WorkerId
from jobqueue.leases import LeaseKeeper
from jobqueue.mongo import moves
from jobqueue.mongo.calls import Calls
from jobqueue.mongo.documents import read_document, to_document
from jobqueue.mongo.outcomes import Outcomes
from jobqueue.mongo.store import Store
from jobqueue.repository import Claimed, Features, JobRepository, Window
from jobqueue.retry import BackoffPolicy
from jobqueue.tasks import Registry
from jobqueue.telemetry import UNOBSERVED, Observer
from jobqueue.worker import PoolOptions, WorkerPool

SLOTS = 100
LEASE = timedelta(seconds=30)
AS_CONNECTED = CodecOptions[Mapping[str, Any]](tz_aware=True)


class Accepting:
    """A collection that matches whatever is written."""

    async def bulk_write(self, writes: Sequence[Any], *, ordered: bool) -> SimpleNamespace:
        return SimpleNamespace(matched_count=sum(len(write._filter["_id"]["$in"]) for write in writes))


class Wire:
    """What of a repository runs jobs: documents come as BSON, completions go as far as the driver."""

    def __init__(self, jobs: Sequence[Job], observer: Observer = UNOBSERVED) -> None:
        self.features = features = Features(name="a stand-in", version="", pipeline_updates=True)
        store = SimpleNamespace(
            jobs=Accepting(), calls=Calls(8), client_seconds=8.0, features=features, by_id={}, observer=observer
        )
        self._waiting = [Candidate.of(job) for job in jobs]
        self._documents = {job.id: bson.encode(to_document(job)) for job in jobs}
        self._outcomes = Outcomes(cast(Store, store))
        self.completed = 0
        self.all_completed = asyncio.Event()

    async def candidates(self, queues: object, *, after: object, limit: int) -> Window:
        waiting, self._waiting = self._waiting, []
        return Window(waiting, complete=True)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        return Claimed([read_document(bson.decode(self._documents[job_id], AS_CONNECTED)) for job_id in job_ids])

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        answers = await self._outcomes.write_all([moves.complete(claim, result, at=at) for claim, result in completed])
        self.completed += len(answers)
        if self.completed == len(self._documents):
            self.all_completed.set()
        return answers


def waiting(count: int) -> list[Job]:
    """Jobs that wait, as they would look when they are claimed."""
    now = datetime.now(UTC).replace(microsecond=0)
    identifiers = Identifiers(Random(1))
    return [
        Job(
            id=identifiers.job_id(now),
            type="noop",
            payload={"n": number},
            status=Status.PENDING,
            retry_count=1,
            run_at=now,
            created_at=now,
            updated_at=now,
            started_at=now,
            seq=identifiers.seq(now),
            insert_id=identifiers.token(),
        )
        for number in range(count)
    ]


def wired_pool(
    wire: Wire,
    registry: Registry,
    observer: Observer = UNOBSERVED,
    *,
    slots: int = SLOTS,
    queue_size: int = 1_000,
    clock: Clock | None = None,
    keeper: LeaseKeeper | None = None,
    on_scheduled: Callable[[datetime], None] = lambda at: None,
    on_finished: Callable[[JobId], None] = lambda job_id: None,
) -> WorkerPool:
    """A pool that runs what waits there, once its poller runs."""
    return WorkerPool(
        cast(JobRepository, wire),
        registry,
        LeaseKeeper(LEASE) if keeper is None else keeper,
        options=PoolOptions(
            slots=slots,
            queue_size=queue_size,
            queues=["default"],
            poll_seconds=1.0,
            lease=LEASE,
            timeout_seconds=1800.0,
            backoff=BackoffPolicy(),
        ),
        worker_id=WorkerId("w"),
        clock=clock or ServerClock(),
        identifiers=Identifiers(Random(2)),
        random=Random(3),
        on_finished=on_finished,
        on_scheduled=on_scheduled,
        observer=observer,
    )


async def end(pool: WorkerPool, poller: asyncio.Task[None], *, grace_seconds: float = 20.0) -> None:
    """Stop a pool and the task of its poller."""
    poller.cancel()
    await asyncio.gather(poller, return_exceptions=True)
    await pool.stop(grace_seconds=grace_seconds, flush_seconds=20.0)
