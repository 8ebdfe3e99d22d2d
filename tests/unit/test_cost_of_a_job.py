"""What a worker does for each job, beside the job: bounded, so that nobody adds to it unawares.

Counted are the calls of Python functions, ours and those of others, since what they take would differ from machine to
machine. Whoever has good reasons for more of them sets the bound anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from types import FrameType, SimpleNamespace
from typing import Any, cast

import bson
import pytest
import structlog
from bson.codec_options import CodecOptions

from jobqueue.clock import Identifiers, ServerClock
from jobqueue.job import Candidate, Claim, Job, JobId, JsonValue, Lease, Status, WorkerId
from jobqueue.leases import LeaseKeeper
from jobqueue.mongo import moves
from jobqueue.mongo.calls import Calls
from jobqueue.mongo.documents import read_document, to_document
from jobqueue.mongo.outcomes import Outcomes
from jobqueue.mongo.store import Store
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.repository import Claimed, Features, JobRepository, Window
from jobqueue.retry import BackoffPolicy
from jobqueue.tasks import Registry
from jobqueue.telemetry import Observer
from jobqueue.worker import PoolOptions, WorkerPool

JOBS = 1_000
SLOTS = 100
LEASE = timedelta(seconds=30)
AS_CONNECTED = CodecOptions[Mapping[str, Any]](tz_aware=True)

NOT_ALWAYS_CALLS = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>"})
"""From Python 3.12 on these are part of the function around them."""


class Accepting:
    """A collection that matches whatever is written."""

    async def bulk_write(self, writes: Sequence[Any], *, ordered: bool) -> SimpleNamespace:
        return SimpleNamespace(matched_count=sum(len(write._filter["_id"]["$in"]) for write in writes))


class Wire:
    """What of a repository runs jobs: documents come as BSON, completions go as far as the driver."""

    def __init__(self, jobs: Sequence[Job], observer: Observer) -> None:
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


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lines at INFO are not shown, and so must cost nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("result", "most"),
    [
        (None, 90),  # 86.5 when this was written; 84 to 86 on later Pythons
        ({"n": 1}, 97),  # 93.5
    ],
    ids=["nothing", "a result"],
)
async def test_running_a_job_takes_a_bounded_number_of_calls(result: JsonValue, most: int) -> None:
    jobs, registry = _jobs(), Registry()

    @registry.task("noop")
    async def noop() -> JsonValue:
        return result

    metrics = PrometheusMetrics(types=["noop"])
    wire = Wire(jobs, metrics)
    pool = _pool(wire, registry, metrics)

    with _counted() as calls:
        poller = asyncio.create_task(pool.poller.run())
        await asyncio.wait_for(wire.all_completed.wait(), 60)
    poller.cancel()
    await pool.stop(grace_seconds=10, flush_seconds=10)

    assert not pool.running
    assert len(calls) / JOBS <= most


@contextmanager
def _counted() -> Iterator[list[str]]:
    calls: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name not in NOT_ALWAYS_CALLS:
            calls.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def _jobs() -> list[Job]:
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
        for number in range(JOBS)
    ]


def _pool(wire: Wire, registry: Registry, observer: Observer) -> WorkerPool:
    return WorkerPool(
        cast(JobRepository, wire),
        registry,
        LeaseKeeper(LEASE),
        options=PoolOptions(
            slots=SLOTS,
            queue_size=JOBS,
            queues=["default"],
            poll_seconds=1.0,
            lease=LEASE,
            timeout_seconds=1800.0,
            backoff=BackoffPolicy(),
        ),
        worker_id=WorkerId("w"),
        clock=ServerClock(),
        identifiers=Identifiers(Random(2)),
        random=Random(3),
        on_finished=lambda job_id: None,
        on_scheduled=lambda at: None,
        observer=observer,
    )
