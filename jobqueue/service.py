"""What a client may ask for. `_make_and_store` is the product in a few lines: make jobs, store them, offer their ids.

Knows no HTTP and no driver. Raises the errors of `errors.py`. To repeat a call does no harm: what was done already is
refused (`DuplicateJob`, `IllegalMove`, `JobNotFound`). Only a new job without id and key becomes a second job.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from jobqueue.admission import Admission, AdmissionLimits
from jobqueue.batching import EachTurn
from jobqueue.clock import Clock, Identifiers
from jobqueue.dispatch import Dispatcher
from jobqueue.errors import (
    DuplicateJob,
    FieldProblem,
    IllegalMove,
    InvalidJob,
    JobNotFound,
    JobQueueError,
    KeyReused,
    OutcomeUnknown,
    QueueFull,
    RateLimited,
    ShuttingDown,
)
from jobqueue.following import Followers
from jobqueue.idempotency import Enqueued, FirstRequests, as_created, fingerprint_of
from jobqueue.job import (
    DEFAULT_NAME,
    FINISHED,
    LAST_INSTANT,
    Backoff,
    Candidate,
    Fault,
    Job,
    JsonValue,
    LogLine,
    Status,
    to_milliseconds,
)
from jobqueue.repository import (
    WORKER_SILENCE_SECONDS,
    DatabaseState,
    JobFilter,
    JobRepository,
    Page,
    QueueCount,
    Revision,
    WorkerRecord,
)
from jobqueue.telemetry import UNOBSERVED, Observer

DEAD_LETTERS_COUNTED = 10_000
"""`/dlq` counts no further than this, so that its cost has a bound."""

PORTION = 1_000
"""Of many jobs so many are made and stored at a time, as go into one write: the store has work while the next are made,
and others get their turn on the event loop."""
TURNS_TO_SEND = 2
"""Turns of the event loop until a portion is on its way."""

NO_LIMITS = AdmissionLimits()

NOT_IN_FINGERPRINT = frozenset({"idempotency_key", "traceparent"})
"""Fields of a new job that may differ between a request and its repetition."""


class NewJob(NamedTuple):
    """A job that a client wants; None means "by default". At most one of `run_at`, `delay_seconds` is set."""

    type: str = DEFAULT_NAME
    payload: JsonValue = None
    id: str | None = None
    queue: str = DEFAULT_NAME
    priority: int = 0
    max_retries: int | None = None
    run_at: datetime | None = None
    delay_seconds: float | None = None
    timeout_seconds: float | None = None
    tags: Sequence[str] = ()
    backoff: Backoff | None = None
    fault: Fault | None = None
    idempotency_key: str | None = None
    traceparent: str | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of what the client asked for: the same for the same job, however its request was written."""
        # Without what has its default, so that a field which a later version adds changes no fingerprint.
        asked = {name: value for name, value in self._asdict().items() if name not in NOT_IN_FINGERPRINT}
        return fingerprint_of({name: value for name, value in asked.items() if value != self._field_defaults[name]})


class JobService:
    """Enqueue, look, wait, cancel, redrive, delete."""

    def __init__(
        self,
        jobs: JobRepository,
        dispatcher: Dispatcher,
        *,
        clock: Clock,
        identifiers: Identifiers,
        followers: Followers,
        max_retries_of: Callable[[str], int],
        limits: AdmissionLimits = NO_LIMITS,
        observer: Observer = UNOBSERVED,
        faults: bool = False,
    ) -> None:
        """`faults` lets in jobs that are to fail on purpose."""
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._clock = clock
        self._identifiers = identifiers
        self._followers = followers
        self._max_retries_of = max_retries_of
        self._faults = faults
        self._admission = Admission(jobs, limits=limits, clock=clock)
        self._first_requests = FirstRequests()
        # Many requests come in one turn of the event loop. Each step is taken for all of them before the next: what it
        # needs is in the processor's caches then, and a request takes a seventh less CPU. Nothing waits for a write.
        self._asked_at_once = EachTurn[NewJob, Job](self._enqueue_each, name="new jobs")
        self._observer = observer
        self._accepting = True

    async def enqueue(self, new: NewJob) -> Job:
        """Store a job and have it run. When this returns, the job is stored by a majority, journalled.

        Raises `DuplicateJob`, `InvalidJob`, `QueueFull`, `RateLimited`, `ShuttingDown`, `OutcomeUnknown`."""
        # By way of `enqueue_many`, as all that create jobs.
        return await self._asked_at_once.submit(new)

    async def enqueue_once(self, new: NewJob) -> Enqueued:
        """The same for a job with an idempotency key: who repeats the request gets the first answer again.

        Raises `KeyReused` (the key stands for another request), `KeyInUse` (the first one is still under way), and
        what `enqueue` does; `DuplicateJob` when the key's job cannot be told to come of this request."""
        assert new.idempotency_key is not None
        enqueued = await self._first_requests.run(new.idempotency_key, lambda: self._enqueue_or_replay(new))
        if enqueued.replayed:
            _refuse_another_request(new, enqueued.job)
        return enqueued

    async def enqueue_many(self, new: Sequence[NewJob]) -> Sequence[Job | JobQueueError]:
        """Store many jobs: for each, in order, the stored job or why it was refused.

        Raises `QueueFull`, `RateLimited` when they do not all fit, and `ShuttingDown`: then none is stored."""
        self._refuse_when_stopping()
        async with self._admission.admit([item.queue for item in new]) as admitted:
            answers = await self._store_all(new)
            for item, answer in zip(new, answers, strict=True):
                if isinstance(answer, JobQueueError) and not isinstance(answer, OutcomeUnknown):
                    admitted.give_back(item.queue)
        return answers

    async def get(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""
        return await self._jobs.get(job_id)

    async def get_many(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """These jobs by their ids; those that are not there are left out."""
        return await self._jobs.get_many(job_ids)

    async def follow(self, job_id: str) -> AsyncGenerator[Job, None]:
        """The job as it is, and again whenever it has changed, until it is finished.

        Raises `JobNotFound`, also when the job is deleted, `QueueFull` (too many follow), `ShuttingDown`."""
        with self._followers.follow(job_id) as follower:
            job = await self._jobs.get(job_id)
            yield job
            while job.status not in FINISHED:
                await follower.changed()
                known, job = job, await self._jobs.get(job_id)
                if Revision(job.status, job.updated_at) != Revision(known.status, known.updated_at):
                    yield job

    async def wait(self, job_id: str, *, seconds: float) -> Job:
        """The job as soon as it is finished, or as it stands when the time is over. Raises `JobNotFound`."""
        job = await self._jobs.get(job_id)
        if seconds <= 0 or job.status in FINISHED:
            return job
        with contextlib.suppress(TimeoutError, QueueFull, ShuttingDown):
            async with asyncio.timeout(seconds):
                async for seen in self.follow(job_id):
                    job = seen
        return job if job.status in FINISHED else await self._jobs.get(job_id)

    async def list(self, which: JobFilter, *, before: int | None, limit: int, max_bytes: int) -> Page:
        """Jobs newest first, from just before the sequence number `before`."""
        return await self._jobs.list(which, before=before, limit=limit, max_bytes=max_bytes)

    async def count_dead_letters(self) -> int:
        """How many jobs failed for good, counted up to `DEAD_LETTERS_COUNTED`."""
        return await self._jobs.count(Status.FAILED, limit=DEAD_LETTERS_COUNTED)

    async def count_by_status(self) -> Mapping[Status, int]:
        """How many jobs stand in each state. Costs what it counts."""
        return await self._jobs.count_by_status()

    async def database_state(self) -> DatabaseState:
        """The whole database in numbers; may be a second old."""
        return DatabaseState(await self._jobs.totals(), await self._jobs.queues(), self._clock.now())

    async def logs(self, job_id: str) -> Sequence[LogLine]:
        """What the attempts of this job logged, the oldest line first. Raises `JobNotFound`."""
        if job_id not in await self._jobs.revisions([job_id]):
            raise JobNotFound(job_id)
        return await self._jobs.logs(job_id)

    async def cancel(self, job_id: str) -> Job:
        """End a waiting job; ask a running one to stop. Raises `JobNotFound`, `IllegalMove`."""
        job = await self._jobs.cancel(job_id, at=self._clock.now())
        if job.status is Status.PROCESSING:
            self._dispatcher.interrupt(job.id)
        return job

    async def redrive(self, job_id: str) -> Job:
        """Put a failed or cancelled job back. Raises `JobNotFound`, `IllegalMove`, `ShuttingDown`."""
        self._refuse_when_stopping()
        job = await self._jobs.redrive(job_id, at=self._clock.now())
        self._dispatcher.offer_candidates([Candidate.of(job)])
        return job

    async def redrive_dead_letter(self, job_id: str) -> Job:
        """Put a failed job back, but no cancelled one. Raises as `redrive` does."""
        job = await self._jobs.get(job_id)
        if job.status is not Status.FAILED:
            raise IllegalMove(job_id, "redrive", job.status)
        return await self.redrive(job_id)

    async def redrive_many(self, which: JobFilter, *, limit: int) -> Sequence[Candidate]:
        """Put back the newest `limit` failed jobs that match; returns those put back. Raises `ShuttingDown`."""
        self._refuse_when_stopping()
        redriven = await self._jobs.redrive_many(which, at=self._clock.now(), limit=limit)
        self._dispatcher.offer_candidates(redriven)
        return redriven

    async def delete_dead_letters(self, which: JobFilter, *, limit: int) -> int:
        """Remove the newest `limit` failed jobs that match; returns how many."""
        return await self._jobs.delete_dead_letters(which, limit=limit)

    async def delete(self, job_id: str) -> None:
        """Remove a job that is not running. Raises `JobNotFound`, `IllegalMove`."""
        await self._jobs.delete(job_id)

    async def queues(self) -> Sequence[QueueCount]:
        """Every known queue with what waits in it; may be a second old."""
        return await self._jobs.queues()

    async def workers(self) -> Sequence[WorkerRecord]:
        """Processes with workers that lately gave a sign of life. A killed one is among them until then."""
        since = self._clock.now() - timedelta(seconds=WORKER_SILENCE_SECONDS)
        return await self._jobs.workers(since=since)

    async def check(self) -> None:
        """Raises `Unavailable` or `ShuttingDown` when this process should get no traffic."""
        self._refuse_when_stopping()
        await self._jobs.check()

    def stop_accepting(self) -> None:
        """Refuse new work from now on; reading goes on, and whoever waits for a job is answered now."""
        self._accepting = False
        self._followers.end_all()

    async def aclose(self) -> None:
        """Return when everything that was asked for is answered."""
        await self._asked_at_once.aclose()

    def _refuse_when_stopping(self) -> None:
        if not self._accepting:
            raise ShuttingDown

    async def _enqueue_or_replay(self, new: NewJob) -> Enqueued:
        try:
            return Enqueued(await self.enqueue(new))
        except DuplicateJob as duplicate:
            first = duplicate.existing
            # Its id may be what is taken; a job made by hand may have a key but no fingerprint.
            if first is None or first.idempotency_key != new.idempotency_key or first.fingerprint is None:
                raise
        _refuse_another_request(new, first)
        return Enqueued(as_created(first, run_at=self._run_at(new, first.created_at)), replayed=True)

    async def _enqueue_each(self, new: Sequence[NewJob]) -> Sequence[Job | JobQueueError]:
        try:
            return await self.enqueue_many(new)
        except JobQueueError as error:
            if len(new) == 1 or not isinstance(error, QueueFull | RateLimited):
                return [error] * len(new)
        # Not all of them fit, but nobody asked for that: as many get in as there is room for.
        return [answer for [answer] in await asyncio.gather(*(self._enqueue_each([item]) for item in new))]

    async def _store_all(self, new: Sequence[NewJob]) -> Sequence[Job | JobQueueError]:
        if len(new) <= PORTION:
            return await self._make_and_store(new)
        tasks = []
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(new), PORTION):
                tasks.append(
                    group.create_task(self._make_and_store(new[start : start + PORTION]), name="store many jobs")
                )
                for _ in range(TURNS_TO_SEND):
                    await asyncio.sleep(0)
        return [answer for task in tasks for answer in task.result()]

    async def _make_and_store(self, new: Sequence[NewJob]) -> Sequence[Job | JobQueueError]:
        now = self._clock.now()
        made = [self._make_or_refuse(item, now=now) for item in new]
        answers = iter(await self._jobs.insert_many([job for job in made if isinstance(job, Job)]))
        outcomes = [next(answers) if isinstance(job, Job) else job for job in made]
        stored = [outcome for outcome in outcomes if isinstance(outcome, Job)]
        self._observer.enqueued(stored)
        self._dispatcher.offer(stored)
        return outcomes

    def _make_or_refuse(self, new: NewJob, *, now: datetime) -> Job | InvalidJob:
        try:
            return self._make(new, now=now)
        except InvalidJob as error:
            # Kept as an answer, not raised: its traceback would hold the caller's frame, and that the answers.
            return error.with_traceback(None)

    def _make(self, new: NewJob, *, now: datetime) -> Job:
        if new.fault is not None and not self._faults:
            raise InvalidJob([FieldProblem("/fault", "is only taken where JOBQUEUE_FAULTS=true is set")])
        run_at = self._run_at(new, now)
        # Whoever wants a job has had it checked. One by one: a call with so many arguments takes twice as long.
        fields = Job.defaults()
        fields["id"] = new.id if new.id is not None else self._identifiers.job_id(now)
        fields["type"] = new.type
        fields["queue"] = new.queue
        fields["payload"] = new.payload
        fields["priority"] = new.priority
        fields["status"] = Status.SCHEDULED if run_at > now else Status.PENDING
        fields["max_retries"] = new.max_retries if new.max_retries is not None else self._max_retries_of(new.type)
        fields["run_at"] = run_at
        fields["timeout_seconds"] = new.timeout_seconds
        fields["created_at"] = fields["updated_at"] = now
        fields["tags"] = list(new.tags) or None
        fields["backoff"] = new.backoff
        fields["fault"] = new.fault and new.fault.model_dump(by_alias=True, exclude_unset=True)
        fields["idempotency_key"] = new.idempotency_key
        fields["fingerprint"] = new.fingerprint if new.idempotency_key is not None else None
        fields["traceparent"] = new.traceparent
        fields["seq"] = self._identifiers.seq(now)
        fields["insert_id"] = self._identifiers.insert_id(near=self._dispatcher.has_workers)
        return Job.of(fields)

    @staticmethod
    def _run_at(new: NewJob, now: datetime) -> datetime:
        if new.delay_seconds is not None:
            return to_milliseconds(min(now + timedelta(seconds=new.delay_seconds), LAST_INSTANT))
        return to_milliseconds(new.run_at) if new.run_at is not None else now


def _refuse_another_request(new: NewJob, first: Job) -> None:
    if first.fingerprint != new.fingerprint:
        raise KeyReused(new.idempotency_key or "", first.id)
