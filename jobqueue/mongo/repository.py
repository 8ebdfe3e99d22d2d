"""`MongoJobRepository`: the port, on MongoDB. Puts the subjects together and holds the moves of single jobs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import ValidationError

from jobqueue.clock import Clock, Identifiers, ServerClock
from jobqueue.errors import IllegalMove, JobNotFound, JobQueueError, LeaseLost, Unavailable
from jobqueue.job import (
    EPOCH,
    AttemptError,
    Candidate,
    Claim,
    Job,
    JobId,
    JsonValue,
    Lease,
    LeaseId,
    LogLine,
    Progress,
    Status,
    WorkerId,
)
from jobqueue.mongo import moves
from jobqueue.mongo.adoption import Adoption
from jobqueue.mongo.calls import CLIENT_SECONDS, settled
from jobqueue.mongo.claims import ClaimMode, Claims
from jobqueue.mongo.counters import Counters
from jobqueue.mongo.documents import plain, unreadable_error
from jobqueue.mongo.fresh import FreshJobs
from jobqueue.mongo.indexes import check_indexes, ensure_indexes
from jobqueue.mongo.inserts import Inserts
from jobqueue.mongo.job_logs import JobLogs
from jobqueue.mongo.limits import Limits
from jobqueue.mongo.moves import Filter, Update
from jobqueue.mongo.outcomes import Outcomes
from jobqueue.mongo.overview import Overview
from jobqueue.mongo.pages import Pages
from jobqueue.mongo.store import Client, Store
from jobqueue.mongo.sweeps import Sweeps
from jobqueue.mongo.wakeups import Wakeups
from jobqueue.repository import (
    Claimed,
    Features,
    JobFilter,
    Page,
    Promoted,
    QueueCount,
    QueueSignal,
    Rescued,
    Revision,
    Totals,
    Window,
    WorkerRecord,
)
from jobqueue.telemetry import UNOBSERVED, Observer

RACES = 5
"""How often a move of one job is tried again because the job was moved in the same moment."""

DEAD_LETTERS_PAGE_BYTES = 16 << 20
DEAD_LETTERS_PAGE = 500


class MongoJobRepository:
    """`JobRepository` on a client of Motor or of PyMongo (or on mongomock's, for tests)."""

    def __init__(
        self,
        client: Client,
        database_name: str,
        *,
        claim_mode: ClaimMode = "auto",
        clock: Clock | None = None,
        identifiers: Identifiers | None = None,
        features: Features | None = None,
        client_seconds: float = CLIENT_SECONDS,
        logs_kept: timedelta = timedelta(days=31),
        observer: Observer = UNOBSERVED,
    ) -> None:
        """`features` is for servers that cannot be asked; such a one is sent no hints. `client_seconds` is how
        long a write is repeated before its outcome is reported as unknown; `logs_kept` is to be longer than jobs
        are: it is for logs whose jobs went without them."""
        clock = clock or ServerClock()
        identifiers = identifiers or Identifiers()
        self._store = Store(client, database_name, features=features, client_seconds=client_seconds, observer=observer)
        self._counters = Counters(self._store, clock, identifiers)
        self._logs = JobLogs(self._store, clock, kept=logs_kept)
        fresh = FreshJobs(clock)
        self._inserts = Inserts(self._store, fresh)
        self._outcomes = Outcomes(self._store)
        self._claims = Claims(self._store, fresh, mode=claim_mode)
        self._pages = Pages(self._store, clock)
        self._limits = Limits(self._store)
        self._overview = Overview(self._store, self._counters, clock)
        self._sweeps = Sweeps(self._store, self._counters, self._logs)
        self._wakeups = Wakeups(self._store, fresh, clock)
        self._adoption = Adoption(self._store, identifiers)

    @property
    def features(self) -> Features:
        return self._store.features

    async def prepare(self) -> None:
        await self._store.find_out()
        await ensure_indexes(self._store)

    async def check(self) -> None:
        await self._ping()
        await check_indexes(self._store)

    async def aclose(self) -> None:
        await self._inserts.aclose()
        await self._outcomes.aclose()
        await self._logs.aclose()
        await self._pages.aclose()
        with contextlib.suppress(Unavailable):
            await self._counters.save()
        await self._store.calls.drain()
        await settled(self._store.client.close())

    # Clients

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Job | JobQueueError]:
        latest = max((job.updated_at for job in jobs), default=EPOCH)
        try:
            await self._wakeups.ensure({job.queue for job in jobs}, at=latest)
        except Unavailable as error:
            return [error] * len(jobs)
        return await self._inserts.insert_many(jobs)

    async def get(self, job_id: str) -> Job:
        return await self._pages.get(job_id)

    async def list(self, which: JobFilter, *, before: int | None, limit: int, max_bytes: int) -> Page:
        return await self._pages.list(which, before=before, limit=limit, max_bytes=max_bytes)

    async def count(self, status: Status, *, limit: int) -> int:
        return await self._pages.count(status, limit=limit)

    async def count_waiting(self, limit: int) -> int:
        return await self._limits.count_waiting(limit)

    async def count_waiting_in(self, queues: Sequence[str], limit: int) -> Sequence[int]:
        return await self._limits.count_waiting_in(queues, limit)

    async def read_meter(self, name: str) -> int:
        return await self._limits.read_meter(name)

    async def move_meter(self, name: str, *, seen: int, to: int) -> bool:
        return await self._limits.move_meter(name, seen=seen, to=to)

    async def count_by_status(self) -> Mapping[Status, int]:
        return await self._overview.count_by_status()

    async def get_many(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        return await self._overview.get_many(job_ids)

    async def revisions(self, job_ids: Collection[str]) -> Mapping[str, Revision]:
        return await self._overview.revisions(job_ids)

    async def queues(self) -> Sequence[QueueCount]:
        return await self._wakeups.counts()

    async def totals(self) -> Totals:
        return await self._overview.totals()

    async def logs(self, job_id: str) -> Sequence[LogLine]:
        return await self._logs.read(job_id)

    async def cancel(self, job_id: str, *, at: datetime) -> Job:
        for _ in range(RACES):
            ended = await self._cancel_waiting(job_id, at=at)
            asked = not ended and await self._ask_to_stop(job_id, at=at)
            job = await self._pages.get(job_id)
            if ended or asked or (job.status is Status.PROCESSING and job.cancel_requested_at is not None):
                return job
            if job.status in moves.ENDED:
                raise IllegalMove(job_id, "cancel", job.status)
            # It moved between the two writes; once more.
        raise Unavailable(f"cannot cancel job {job_id!r}: it moves too fast")

    async def redrive(self, job_id: str, *, at: datetime) -> Job:
        job = await self._pages.get(job_id)
        await self._wakeups.ensure([job.queue], at=at)
        redriven = await self._redrive_one(job_id, at=at)
        job = await self._pages.get(job_id)
        if not redriven:
            raise IllegalMove(job_id, "redrive", job.status)
        return job

    async def redrive_many(self, which: JobFilter, *, at: datetime, limit: int) -> Sequence[Candidate]:
        redriven: list[Candidate] = []
        async for jobs in self._dead_letters(which, limit):
            await self._wakeups.ensure({job.queue for job in jobs}, at=at)
            redriven += await self._sweeps.redrive(jobs, at=at)
        return redriven

    async def delete_dead_letters(self, which: JobFilter, *, limit: int) -> int:
        deleted = 0
        async for jobs in self._dead_letters(which, limit):
            deleted += await self._sweeps.delete_failed([job.id for job in jobs])
        return deleted

    async def _dead_letters(self, which: JobFilter, limit: int) -> AsyncIterator[Sequence[Job]]:
        """The newest `limit` failed jobs that match, page by page."""
        failed, before = replace(which, status=Status.FAILED), None
        while limit > 0:
            page = await self._pages.list(
                failed, before=before, limit=min(limit, DEAD_LETTERS_PAGE), max_bytes=DEAD_LETTERS_PAGE_BYTES
            )
            yield page.jobs
            before, limit = page.next_before, limit - len(page.jobs)
            if before is None:
                break

    async def delete(self, job_id: str) -> None:
        for _ in range(RACES):
            status = await self._status_as_stored(job_id)
            if status == Status.PROCESSING.value:
                raise IllegalMove(job_id, "delete", Status.PROCESSING)
            if await self._remove(job_id, status):
                return await self._logs.forget([job_id])
            # It moved between the two; once more.
        raise Unavailable(f"cannot delete job {job_id!r}: it moves too fast")

    # Dispatch

    async def known_queues(self) -> Sequence[str]:
        return await self._wakeups.known()

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        return await self._claims.candidates(queues, after=after, limit=limit)

    def signal(self, candidates: Collection[Candidate], *, at: datetime) -> None:
        self._wakeups.signal(candidates, at=at)

    def signals(self, *, on_open: Callable[[], None]) -> AsyncGenerator[QueueSignal, None]:
        return self._wakeups.stream(on_open)

    # The engine

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        return await self._claims.claim(job_ids, lease, at=at)

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        return await self._claims.claimed(job_ids, lease_id)

    async def complete(self, claim: Claim, result: JsonValue | None, *, at: datetime) -> None:
        await self._outcomes.write(moves.complete(claim, result, at=at))

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        return await self._outcomes.write_all([moves.complete(claim, result, at=at) for claim, result in completed])

    async def retry(self, claim: Claim, error: AttemptError, *, run_at: datetime, at: datetime) -> None:
        await self._outcomes.write(moves.retry(claim, error, run_at=run_at, at=at))
        self._counters.count_retried(1)

    async def fail(self, claim: Claim, error: AttemptError, *, at: datetime) -> None:
        await self._outcomes.write(moves.fail(claim, error, at=at))

    async def snooze(self, claim: Claim, *, until: datetime, at: datetime) -> None:
        await self._outcomes.write(moves.snooze(claim, until=until, at=at))

    async def release(self, claim: Claim, *, at: datetime) -> None:
        await self._outcomes.write(moves.release(claim, at=at))

    async def abandon(self, claim: Claim, *, at: datetime) -> None:
        await self._outcomes.write(moves.abandon(claim, at=at))

    async def quarantine(self, claim: Claim, reason: str, *, at: datetime) -> None:
        await self._outcomes.write(moves.quarantine(claim, unreadable_error(reason, at=at), at=at))

    async def append_logs(self, job_id: str, lines: Sequence[LogLine]) -> None:
        await self._logs.append(job_id, lines)

    async def report_progress(self, claim: Claim, progress: Progress, *, at: datetime) -> None:
        # progress: stays processing, only by the lease that claimed it
        update = {"$set": {"progress": progress.model_dump(by_alias=True), "updatedAt": at}}
        if not await self._update_one("report progress", claim.job_id, moves.owned(claim), update):
            raise LeaseLost(claim.job_id, claim.lease_id)

    # Maintenance

    async def promote(self, *, now: datetime, limit: int) -> Promoted:
        return await self._sweeps.promote(now=now, limit=limit)

    async def rescue(
        self, *, cutoff: datetime, at: datetime, limit: int, still: Callable[[], bool] = lambda: True
    ) -> Rescued:
        return await self._sweeps.rescue(cutoff=cutoff, at=at, limit=limit, still=still)

    async def release_orphans(
        self, lease_ids: Collection[LeaseId], known: Collection[Claim], *, at: datetime
    ) -> Sequence[Candidate]:
        return await self._sweeps.release_orphans(lease_ids, known, at=at)

    async def prune(self, status: Status, *, finished_before: datetime, limit: int) -> int:
        return await self._sweeps.prune(status, finished_before=finished_before, limit=limit)

    async def prune_excess(self, *, keep: int, limit: int) -> int:
        return await self._sweeps.prune_excess(keep=keep, limit=limit)

    async def prune_signals(self, *, unused_since: datetime) -> int:
        return await self._wakeups.prune(unused_since=unused_since)

    async def adopt(self, *, at: datetime, limit: int) -> Sequence[Candidate]:
        suspects = dict(islice(self._claims.suspects.items(), limit))
        adopted = await self._adoption.adopt(list(suspects.values()), at=at, limit=limit)
        for text in suspects:
            self._claims.suspects.pop(text, None)
        await self._wakeups.ensure({candidate.queue for candidate in adopted}, at=at)
        return adopted

    async def save_counts(self) -> None:
        await self._counters.save()

    async def fold_counts(self) -> int:
        return await self._counters.fold()

    async def beat(self, worker: WorkerRecord) -> None:
        # workers: one document per process
        document = worker.model_dump(by_alias=True, exclude={"id"}) | {"_id": worker.id}
        await self._store.calls.run(
            "show that this process lives",
            lambda: self._store.workers.replace_one({"_id": worker.id}, document, upsert=True),
        )

    async def farewell(self, worker_id: WorkerId) -> None:
        # workers: this process is gone
        await self._store.calls.run("say goodbye", lambda: self._store.workers.delete_one({"_id": worker_id}))

    async def workers(self, *, since: datetime) -> Sequence[WorkerRecord]:
        # read: processes with a recent sign of life
        found = await self._store.calls.run(
            "read the workers",
            lambda: self._store.workers.find({"heartbeatAt": {"$gte": since}}).to_list(None),
        )
        records = [_read_worker(document) for document in found]
        return [record for record in records if record is not None]

    # Statements about one job

    async def _ping(self) -> None:
        # read: the primary answers
        await self._store.calls.run("reach MongoDB", lambda: self._store.database.command("ping"))

    async def _cancel_waiting(self, job_id: str, *, at: datetime) -> bool:
        # cancel: scheduled, pending -> cancelled, only while it waits
        guard = {"_id": job_id, "status": {"$in": moves.CANCELLABLE}}
        return await self._update_one("cancel", job_id, guard, moves.cancel(at=at))

    async def _ask_to_stop(self, job_id: str, *, at: datetime) -> bool:
        # cancel: stays processing, only while it runs and was not asked before
        guard = {"_id": job_id, "status": Status.PROCESSING.value, **moves.NOT_ASKED_TO_STOP}
        return await self._update_one("cancel", job_id, guard, moves.ask_to_stop(at=at))

    async def _redrive_one(self, job_id: str, *, at: datetime) -> bool:
        # redrive: failed, cancelled -> pending, only while it is one of them
        guard = {"_id": job_id, "status": {"$in": moves.REDRIVABLE}}
        return await self._update_one("redrive", job_id, guard, moves.redrive(at=at))

    async def _remove(self, job_id: str, status: Any) -> bool:
        """Delete a job that stands in this state; a finished one is counted."""

        async def delete(options: Mapping[str, Any]) -> int:
            return await self._delete_one(job_id, status, options)

        async def attempt(call: Callable[[], Awaitable[int]]) -> int:
            return await self._store.calls.write("delete the job", job_id, call)

        if status in moves.ENDED:
            return await self._counters.remove(Status(status), delete, attempt=attempt) == 1
        return await attempt(lambda: delete({})) == 1

    async def _delete_one(self, job_id: str, status: Any, options: Mapping[str, Any]) -> int:
        # delete: any state but processing, only while it is in the state that was seen
        guard = {"_id": job_id, "status": status}
        result = await self._store.jobs.delete_one(guard, **self._store.by_id, **options)
        return result.deleted_count

    async def _status_as_stored(self, job_id: str) -> Any:
        # read: what stands in `status`, which people may have mistyped
        found = await self._store.calls.run(
            "read the job", lambda: self._store.jobs.find_one({"_id": job_id}, {"status": 1})
        )
        if found is None:
            raise JobNotFound(job_id)
        return found.get("status")

    async def _update_one(self, what: str, job_id: str, guard: Filter, update: Update) -> bool:
        result = await self._store.calls.write(
            what, job_id, lambda: self._store.jobs.update_one(guard, update, **self._store.by_id)
        )
        return result.matched_count == 1


def _read_worker(document: Mapping[str, Any]) -> WorkerRecord | None:
    # One that another version wrote, or somebody by hand, may lack something: then it is left out.
    try:
        return WorkerRecord.model_validate(plain(document) | {"id": document["_id"]})
    except ValidationError:
        return None
