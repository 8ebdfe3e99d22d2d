"""The schema: what can be asked, changed and followed. Each resolver is one call of the service.

`Enqueue`, `Jobs`, `Job`, `JobStatus` and their arguments are a contract; so are the words of `JobState`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from jobqueue import job as model
from jobqueue.api.bulk import enqueue_items
from jobqueue.api.graphql.choosing import ChooseOperation
from jobqueue.api.graphql.context import Info, Listing
from jobqueue.api.graphql.errors import PATH, show_errors
from jobqueue.api.graphql.inputs import UNSET, NewJobInput, given, item_of, naming
from jobqueue.api.graphql.limits import EXTENSIONS, MAX_JOBS
from jobqueue.api.graphql.scalars import JSON, SCALARS, Timestamp
from jobqueue.api.graphql.types import (
    STATUSES,
    DeletedDeadLetters,
    EnqueuedMany,
    Job,
    JobConnection,
    JobState,
    JobStatus,
    LogLine,
    Queue,
    RetriedDeadLetters,
    Worker,
)
from jobqueue.api.handlers import checked_id, has_more
from jobqueue.api.schemas import (
    DEFAULT_PAGE,
    LIVE,
    MAX_PAGE,
    MAX_REDRIVEN,
    JobsQuery,
    QueueView,
    RedriveBody,
)
from jobqueue.errors import DuplicateJob, JobNotFound
from jobqueue.repository import JobFilter
from jobqueue.service import NewJob


@strawberry.type
class Query:
    """What can be asked."""

    @strawberry.field(name="Jobs", description="The newest 500 jobs, in the order of their creation.")
    async def jobs(self, info: Info) -> list[Job]:
        page = await info.context.pages.load(Listing(JobFilter(), (None,), None, MAX_PAGE))
        return [Job.of(job) for job in reversed(page.jobs)]

    @strawberry.field(name="Job", description="One job; null when there is none with this id.")
    async def job(self, info: Info, id: str) -> Job | None:
        try:
            job = await info.context.jobs.load(checked_id(id))
        except JobNotFound:
            return None
        return Job.of(job) if job is not None else None

    @strawberry.field(name="JobLogs", description="What the attempts of a job logged, the oldest line first.")
    async def job_logs(self, info: Info, id: str) -> list[LogLine]:
        return [LogLine.of(line) for line in await info.context.service.logs(checked_id(id))]

    @strawberry.field(name="JobStatus", description="How many jobs stand where. Costs what it counts.")
    async def job_status(self, info: Info) -> JobStatus:
        return JobStatus.of(await info.context.counts.load(None))

    @strawberry.field(description="Jobs that match, the newest first, page by page.")
    async def jobs_connection(
        self,
        info: Info,
        first: int = DEFAULT_PAGE,
        after: str | None = UNSET,
        status: JobState | None = UNSET,
        type: str | None = UNSET,
        queue: str | None = UNSET,
        tag: str | None = UNSET,
        created_after: Timestamp | None = UNSET,
        created_before: Timestamp | None = UNSET,
    ) -> JobConnection:
        wanted = given(
            limit=str(first),
            cursor=after,
            type=type,
            queue=queue,
            tag=tag,
            created_after=created_after,
            created_before=created_before,
        )
        with naming({"limit": "first", "cursor": "after"}):
            query = JobsQuery.read(wanted)
        statuses = STATUSES[status] if status else (None,)
        listing = Listing(query.to_filter(), statuses, query.cursor, query.limit)
        return JobConnection.of(await info.context.pages.load(listing))

    @strawberry.field(name="Queues", description="What waits and what runs, by queue. May be a second old.")
    async def queues(self, info: Info) -> list[Queue]:
        now = info.context.api.clock.now()
        return [Queue.of(QueueView.of(queue, now=now)) for queue in await info.context.service.queues()]

    @strawberry.field(name="Workers", description=f"The live ones: every process with workers {LIVE}.")
    async def workers(self, info: Info) -> list[Worker]:
        return [Worker.of(worker) for worker in await info.context.service.workers()]


@strawberry.type
class Mutation:
    """What can be changed."""

    @strawberry.mutation(
        name="Enqueue",
        description="Enqueue a job. Again with the same idempotencyKey it answers with the first job.",
    )
    async def enqueue(
        self,
        info: Info,
        task: str,
        payload: JSON | None = UNSET,
        id: str | None = UNSET,
        queue: str | None = UNSET,
        priority: int | None = UNSET,
        max_retries: int | None = UNSET,
        run_at: Timestamp | None = UNSET,
        delay_seconds: float | None = UNSET,
        timeout_seconds: float | None = UNSET,
        tags: list[str] | None = UNSET,
        idempotency_key: str | None = UNSET,
        backoff: JSON | None = UNSET,
        fault: JSON | None = UNSET,
    ) -> Job:
        new = NewJobInput(
            task=task,
            payload=payload,
            id=id,
            queue=queue,
            priority=priority,
            max_retries=max_retries,
            run_at=run_at,
            delay_seconds=delay_seconds,
            timeout_seconds=timeout_seconds,
            tags=tags,
            idempotency_key=idempotency_key,
            backoff=backoff,
            fault=fault,
        )
        wanted = new.to_new_job()
        try:
            return Job.of(await info.context.service.enqueue(wanted))
        except DuplicateJob as duplicate:
            return Job.of(_first_of_its_key(duplicate, wanted))

    @strawberry.mutation(
        name="EnqueueMany",
        description=f"Enqueue up to {MAX_JOBS:,} jobs, each judged by itself. Once in an operation.",
    )
    async def enqueue_many(self, info: Info, jobs: list[NewJobInput]) -> EnqueuedMany:
        limit = info.context.api.limits.max_payload_bytes
        items = [item_of(job) for job in jobs]
        return EnqueuedMany.of(await enqueue_items(info.context.service, items, item_limit=limit, instance=PATH))

    @strawberry.mutation(name="Cancel", description="Cancel a waiting job, or ask a running one to stop.")
    async def cancel(self, info: Info, id: str) -> Job:
        return Job.of(await info.context.service.cancel(checked_id(id)))

    @strawberry.mutation(name="Retry", description="Put a failed or cancelled job back.")
    async def retry(self, info: Info, id: str) -> Job:
        return Job.of(await info.context.service.redrive(checked_id(id)))

    @strawberry.mutation(name="Delete", description="Remove a job that is not running; answers with its id.")
    async def delete(self, info: Info, id: str) -> strawberry.ID:
        await info.context.service.delete(checked_id(id))
        return strawberry.ID(id)

    @strawberry.mutation(name="RetryDeadLetter", description="Put a failed job back, but no cancelled one.")
    async def retry_dead_letter(self, info: Info, id: str) -> Job:
        return Job.of(await info.context.service.redrive_dead_letter(checked_id(id)))

    @strawberry.mutation(
        name="RetryDeadLetters",
        description="Put back the failed jobs that match, the newest first; every one of them with all: true.",
    )
    async def retry_dead_letters(
        self,
        info: Info,
        all: bool | None = UNSET,
        type: str | None = UNSET,
        queue: str | None = UNSET,
        tag: str | None = UNSET,
        created_after: Timestamp | None = UNSET,
        created_before: Timestamp | None = UNSET,
        limit: int = MAX_REDRIVEN,
    ) -> RetriedDeadLetters:
        which = _dead_letters(
            all=all,
            type=type,
            queue=queue,
            tag=tag,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
        )
        requeued = await info.context.service.redrive_many(which.to_filter(), limit=which.limit)
        return RetriedDeadLetters(requeued=len(requeued), more=await has_more(info.context.service, which))

    @strawberry.mutation(
        name="DeleteDeadLetters",
        description="Remove the failed jobs that match, the newest first; every one of them with all: true.",
    )
    async def delete_dead_letters(
        self,
        info: Info,
        all: bool | None = UNSET,
        type: str | None = UNSET,
        queue: str | None = UNSET,
        tag: str | None = UNSET,
        created_after: Timestamp | None = UNSET,
        created_before: Timestamp | None = UNSET,
        limit: int = MAX_REDRIVEN,
    ) -> DeletedDeadLetters:
        which = _dead_letters(
            all=all,
            type=type,
            queue=queue,
            tag=tag,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
        )
        deleted = await info.context.service.delete_dead_letters(which.to_filter(), limit=which.limit)
        return DeletedDeadLetters(deleted=deleted, more=await has_more(info.context.service, which))


@strawberry.type
class Subscription:
    """What can be followed."""

    @strawberry.subscription(
        name="JobUpdated",
        description="The job as it is, then whenever it has changed, until it is finished.",
    )
    async def job_updated(self, info: Info, id: str) -> AsyncGenerator[Job, None]:
        async with aclosing(info.context.service.follow(checked_id(id))) as states:
            async for job in states:
                yield Job.of(job)


def _dead_letters(*, all: bool | None, **filters: Any) -> RedriveBody:
    """Which dead letters the arguments mean; `all: false` says nothing. Raises `InvalidJob`."""
    return RedriveBody.read(given(all=all or None, **filters))


def _first_of_its_key(duplicate: DuplicateJob, wanted: NewJob) -> model.Job:
    """The job that has the wanted key already, be it the key or the id that was met first. Any other conflict is
    raised as it is."""
    first, key = duplicate.existing, wanted.idempotency_key
    if first is None or key is None or first.idempotency_key != key:
        raise duplicate
    return first


class JobSchema(strawberry.Schema):
    """The schema, with errors as clients may see them."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        # Called for every list of errors just before it leaves, whatever the transport.
        show_errors(errors)


SCHEMA = JobSchema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    extensions=[*EXTENSIONS, ChooseOperation],
    config=StrawberryConfig(scalar_map=SCALARS),
)
