"""The objects of the schema, made of those of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from math import isfinite
from typing import TypeVar

import strawberry

from jobqueue import job as model
from jobqueue.api.cursor import encode_cursor
from jobqueue.api.graphql.errors import code_of
from jobqueue.api.graphql.scalars import JSON, Timestamp
from jobqueue.api.schemas import BulkAnswer, BulkItem, Problem, QueueView
from jobqueue.job import Status, to_rfc3339
from jobqueue.repository import Page, WorkerRecord

INT32 = range(-(2**31), 2**31)
T = TypeVar("T")


@strawberry.enum(description="Where a job stands. PENDING are those that wait, due or not.")
class JobState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUSES: Mapping[JobState, Sequence[Status]] = {
    JobState.PENDING: (Status.SCHEDULED, Status.PENDING),
    JobState.RUNNING: (Status.PROCESSING,),
    JobState.COMPLETED: (Status.COMPLETED,),
    JobState.FAILED: (Status.FAILED,),
    JobState.CANCELLED: (Status.CANCELLED,),
}
"""Which states of a job each word stands for."""

STATES: Mapping[Status, JobState] = {status: state for state, statuses in STATUSES.items() for status in statuses}


@strawberry.type(description="Why one attempt did not succeed.")
class AttemptError:
    attempt: int
    at: Timestamp
    type: str
    message: str
    worker_id: str | None

    @classmethod
    def of(cls, error: model.AttemptError) -> AttemptError:
        return cls(
            attempt=_int32(error.attempt),
            at=_time(error.at),
            type=error.type,
            message=error.message,
            worker_id=error.worker_id,
        )


@strawberry.type(description="Which worker runs the job, and until when it may be silent.")
class Lease:
    worker_id: str
    expires_at: Timestamp

    @classmethod
    def of(cls, lease: model.LeaseView) -> Lease:
        return cls(worker_id=lease.worker_id, expires_at=_time(lease.expires_at))


@strawberry.type(description="How far a running job is, as its task told.")
class Progress:
    percent: float | None
    message: str | None

    @classmethod
    def of(cls, progress: model.Progress) -> Progress:
        return cls(percent=_finite(progress.percent), message=progress.message)


@strawberry.type(description="How long a job waits after a failed attempt, where it differs from its task.")
class Backoff:
    base_seconds: float | None
    max_seconds: float | None

    @classmethod
    def of(cls, backoff: model.Backoff) -> Backoff:
        return cls(base_seconds=_finite(backoff.base_seconds), max_seconds=_finite(backoff.max_seconds))


@strawberry.type(description="One line that an attempt logged.")
class LogLine:
    at: Timestamp
    attempt: int
    level: str
    message: str
    fields: JSON

    @classmethod
    def of(cls, line: model.LogLine) -> LogLine:
        return cls(
            at=_time(line.at),
            attempt=_int32(line.attempt),
            level=line.level,
            message=line.message,
            fields=JSON(line.fields),
        )


@strawberry.type(description="A job.")
class Job:
    id: strawberry.ID
    task: str = strawberry.field(description="Which task runs it; its type in REST.")
    status: JobState
    attempts: int = strawberry.field(description="How often it was begun since it was created or put back.")
    max_retries: int = strawberry.field(description="How many attempts it may have.")
    queue: str
    priority: int = strawberry.field(description="Higher runs first.")
    payload: JSON | None
    result: JSON | None
    tags: list[str]
    errors: list[AttemptError] = strawberry.field(description="Of the latest 20 attempts that did not succeed.")
    progress: Progress | None
    lease: Lease | None
    run_at: Timestamp = strawberry.field(description="Not before this time.")
    timeout_seconds: float | None
    backoff: Backoff | None
    fault: JSON | None = strawberry.field(description="How it fails on purpose.")
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    idempotency_key: str | None
    redrives: int = strawberry.field(description="How often it was put back after it had ended.")

    @classmethod
    def of(cls, job: model.JobView) -> Job:
        return cls(
            id=strawberry.ID(job.id),
            task=job.type,
            status=STATES[job.status],
            attempts=_int32(job.retry_count),
            max_retries=_int32(job.max_retries),
            queue=job.queue,
            priority=_int32(job.priority),
            payload=job.payload,
            result=job.result,
            tags=job.tags or [],
            errors=[AttemptError.of(error) for error in job.errors or ()],
            progress=Progress.of(job.progress) if job.progress is not None else None,
            lease=Lease.of(job.lease) if job.lease is not None else None,
            run_at=_time(job.run_at),
            timeout_seconds=_finite(job.timeout_seconds),
            backoff=Backoff.of(job.backoff) if job.backoff is not None else None,
            fault=JSON(job.fault) if job.fault is not None else None,
            created_at=_time(job.created_at),
            updated_at=_time(job.updated_at),
            started_at=_optional_time(job.started_at),
            finished_at=_optional_time(job.finished_at),
            cancel_requested_at=_optional_time(job.cancel_requested_at),
            idempotency_key=job.idempotency_key,
            redrives=_int32(job.redrives or 0),
        )


@strawberry.type(description="How many jobs stand where. The numbers add up to the number of jobs.")
class JobStatus:
    pending: int
    running: int
    failed: int
    completed: int
    cancelled: int

    @classmethod
    def of(cls, counts: Mapping[Status, int]) -> JobStatus:
        return cls(**{state.value: sum(counts[status] for status in STATUSES[state]) for state in JobState})


@strawberry.type
class JobEdge:
    cursor: str
    node: Job


@strawberry.type
class PageInfo:
    has_next_page: bool
    has_previous_page: bool = strawberry.field(description="Always false: pages go one way, from the newest on.")
    start_cursor: str | None
    end_cursor: str | None = strawberry.field(description="Where the next page begins; for `after`.")


@strawberry.type(description="A page of jobs, the newest first. It may have fewer than were asked for.")
class JobConnection:
    edges: list[JobEdge]
    nodes: list[Job]
    page_info: PageInfo

    @classmethod
    def of(cls, page: Page) -> JobConnection:
        edges = [JobEdge(cursor=encode_cursor(job.seq), node=Job.of(job)) for job in page.jobs]
        last = encode_cursor(page.next_before) if page.next_before is not None else None
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=last is not None,
                has_previous_page=False,
                start_cursor=edges[0].cursor if edges else None,
                # A page that found nothing in its time has no last job, but a place to go on from.
                end_cursor=last or (edges[-1].cursor if edges else None),
            ),
        )


@strawberry.type(description="A queue: depth is what waits in it, due or not.")
class Queue:
    name: str
    depth: int
    pending: int
    scheduled: int
    processing: int
    oldest_pending_at: Timestamp | None
    oldest_age_seconds: float | None

    @classmethod
    def of(cls, queue: QueueView) -> Queue:
        return cls(
            name=queue.name,
            depth=queue.depth,
            pending=queue.pending,
            scheduled=queue.scheduled,
            processing=queue.processing,
            oldest_pending_at=_optional_time(queue.oldest_pending_at),
            oldest_age_seconds=queue.oldest_age_seconds,
        )


@strawberry.type(description="A live process with workers; `heartbeatAt` is its last sign of life.")
class Worker:
    id: strawberry.ID
    host: str
    pid: int
    version: str
    queues: list[str]
    slots: int
    running: list[str]
    started_at: Timestamp
    heartbeat_at: Timestamp

    @classmethod
    def of(cls, worker: WorkerRecord) -> Worker:
        return cls(
            id=strawberry.ID(worker.id),
            host=worker.host,
            pid=worker.pid,
            version=worker.version,
            queues=worker.queues,
            slots=worker.slots,
            running=worker.running,
            started_at=_time(worker.started_at),
            heartbeat_at=_time(worker.heartbeat_at),
        )


@strawberry.type(description="One thing that is wrong with the input, and where.")
class InputProblem:
    pointer: str
    detail: str


@strawberry.type(description="Why one of many was refused: what an error has in its message and extensions.")
class Refusal:
    code: str
    message: str
    job_id: str | None
    errors: list[InputProblem]

    @classmethod
    def of(cls, problem: Problem) -> Refusal:
        errors = [InputProblem(pointer=each.pointer, detail=each.detail) for each in problem.errors or ()]
        return cls(code=code_of(problem), message=problem.detail, job_id=problem.job_id, errors=errors)


@strawberry.type(description="What became of one of many: its id when it was stored, otherwise why it was not.")
class EnqueuedItem:
    index: int
    id: strawberry.ID | None
    refused: Refusal | None

    @classmethod
    def of(cls, item: BulkItem) -> EnqueuedItem:
        return cls(
            index=item.index,
            id=strawberry.ID(item.id) if item.id is not None else None,
            refused=Refusal.of(item.problem) if item.problem is not None else None,
        )


@strawberry.type(description="What became of many jobs, in the order in which they were sent.")
class EnqueuedMany:
    accepted: int
    rejected: int
    items: list[EnqueuedItem]

    @classmethod
    def of(cls, answer: BulkAnswer) -> EnqueuedMany:
        items = [EnqueuedItem.of(item) for item in answer.items]
        return cls(accepted=answer.accepted, rejected=answer.rejected, items=items)


@strawberry.type(description="How many dead letters were put back, and whether there are more of the kind.")
class RetriedDeadLetters:
    requeued: int
    more: bool


@strawberry.type(description="How many dead letters were removed, and whether there are more of the kind.")
class DeletedDeadLetters:
    deleted: int
    more: bool


def _int32(value: int) -> int:
    """The nearest that a GraphQL Int can be; only what people stored by hand is beyond."""
    return max(INT32[0], min(INT32[-1], value))


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _time(moment: datetime) -> Timestamp:
    return Timestamp(to_rfc3339(moment))


def _optional_time(moment: datetime | None) -> Timestamp | None:
    return _time(moment) if moment is not None else None
