"""The worker pool: claims jobs, runs them, writes what became of them.

One attempt's life, top to bottom: `offer` or the poller puts an id into the `ReadyQueue`; `_pump` reserves slots
and takes ids; `_claim` makes them ours in the store; `_start` enters them into the running table; `_run` has the
executor perform the task and frees the slot; `_report` writes the outcome (completions of the same moment go
together) and leaves the table.

Invariants:
- Never more claims than free slots. A claim whose answer was lost keeps its slots until a read has settled it.
- No task starts before its claim is acknowledged, and none while an earlier attempt of its job still runs here.
- An attempt stays in the running table, and its lease is renewed, until its outcome is acknowledged. Outcomes
  that are not acknowledged yet are bounded; at the bound no more is claimed.
- An attempt that lost its lease is stopped and writes nothing.

Stopping: claim nothing more; wait for what runs, at most the grace period; cancel the rest and give it back;
wait until every outcome is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar, assert_never

import structlog

from jobqueue.attempt import Attempt, Ending, Execute, Executor, Released, Stop
from jobqueue.clock import Clock, Identifiers
from jobqueue.contention import Contention
from jobqueue.dispatch import Busy, ReadyQueue
from jobqueue.errors import LeaseLost, QueueFull, Unavailable
from jobqueue.execution import execute
from jobqueue.job import AttemptError, Candidate, Claim, Job, JobId, Lease, LeaseId, Status, WorkerId, to_milliseconds
from jobqueue.job_log import JobLog
from jobqueue.leases import LeaseKeeper, Notice
from jobqueue.loop import end
from jobqueue.outcome import Cancelled, Completed, Failed, Failure, Retry, Snoozed
from jobqueue.poller import Poller
from jobqueue.progress import ProgressReporter
from jobqueue.repository import Claimed, JobRepository
from jobqueue.retry import BackoffPolicy, next_run_at
from jobqueue.tasks import Registry
from jobqueue.telemetry import UNOBSERVED, Observer

CLAIMS_IN_FLIGHT = 2
"""While one claim travels the next may already be sent; more would only make each of them smaller."""
WORTH_ANOTHER_CLAIM = 20
"""So many jobs, or as many as half of the slots, are claimed beside a claim that is under way; fewer wait for its
answer, and for those that come meanwhile: singly they cost the embedded server 0.4 ms each, by the hundred 0.05."""
MAX_CLAIM = 200
"""In one claim: none of its jobs starts before all are claimed, and a server may look for each among all their ids."""
MAX_UNACKNOWLEDGED = 2_000
"""Two full batches of the group commit."""
LATE_CLAIM_SECONDS = 30.0
"""Longer than a claim can still be carried out after its answer was given up."""
LEAST_OF_LEASE = 3
"""A claim that was answered with less than this part of its lease left is given back unrun. Then claims are for half as
many, until they take less than this part: singly, or by a slow server, many may take longer than their lease lasts."""
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
LAST_CLAIM_PAUSE_SECONDS = 1.0
"""A server that answers, and refuses at once to write, is not asked more often than this for long."""
SHOWN_STUBBORN = 10
"""Ids in the log, of jobs that do not end when they are cancelled."""

LONGEST_DELAY_SECONDS = 10 * 365 * 86_400.0
"""A task that asks for a longer one gets this: beyond the year 9999 there is no time to store."""

VERBS = {
    Completed: "completed",
    Retry: "failed, will retry",
    Failed: "failed",
    Snoozed: "snoozed",
    Cancelled: "cancelled",
    Released: "released",
}
"""What the log says of each ending."""

OUTCOMES = {
    Completed: "completed",
    Retry: "retried",
    Failed: "failed",
    Snoozed: "snoozed",
    Cancelled: "cancelled",
    Released: "released",
}
"""What metrics call each ending."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool works; durations in seconds unless they are timedeltas."""

    slots: int
    queue_size: int
    queues: Sequence[str]
    poll_seconds: float
    lease: timedelta
    timeout_seconds: float
    backoff: BackoffPolicy


class WorkerPool:
    """Runs jobs in this process. Implements `Dispatcher`."""

    def __init__(
        self,
        jobs: JobRepository,
        registry: Registry,
        keeper: LeaseKeeper,
        *,
        options: PoolOptions,
        worker_id: WorkerId,
        clock: Clock,
        identifiers: Identifiers,
        random: Random,
        on_finished: Callable[[JobId], None],
        on_scheduled: Callable[[datetime], None],
        observer: Observer = UNOBSERVED,
        execute: Execute = execute,
    ) -> None:
        self._jobs = jobs
        self._keeper = keeper
        self._options = options
        self._worker_id = worker_id
        self._clock = clock
        self._identifiers = identifiers
        self._random = random
        self._on_finished = on_finished
        self._on_scheduled = on_scheduled
        self._observer = observer
        at_hand = max(options.queue_size, options.slots)  # with fewer, slots would wait for one look after the other
        self._ready = ReadyQueue(at_hand)
        self._contention = Contention(worker_id, clock)
        self._busy = Busy()
        self._running: dict[Claim, Attempt] = {}
        self._reserved = 0
        self._claims_in_flight = 0
        self._worth_another_claim = min(WORTH_ANOTHER_CLAIM, (options.slots + 1) // 2)
        self._claim_pause = FIRST_RETRY_SECONDS
        self._claimed_in_time = MAX_CLAIM
        self._doubtful: dict[LeaseId, float] = {}
        self._completed: list[tuple[Attempt, Completed]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()
        self._pump_is_due = False
        self._stopping = False
        self._giving_up = False
        self.poller = Poller(
            jobs,
            self._ready,
            queues=options.queues,
            window=at_hand,
            poll_seconds=options.poll_seconds,
            contention=self._contention,
            busy=self._busy,
            is_saturated=self._is_saturated,
            on_found=self._wake,
            clock=clock,
            random=random,
        )
        self._progress = ProgressReporter(jobs, clock)
        self._log = JobLog(jobs, clock)
        self._executor = Executor(
            registry,
            timeout_seconds=options.timeout_seconds,
            backoff=options.backoff,
            execute=execute,
            on_progress=self._progress.report,
            on_log=self._log.keep,
            on_slot_free=self._wake,
        )

    # Dispatcher

    has_workers = True

    def offer(self, jobs: Sequence[Job]) -> None:
        """Run these as soon as there is a slot; what is scheduled is left to the stager."""
        self.offer_candidates([Candidate.of(job) for job in jobs if job.status is Status.PENDING])
        scheduled = [job.run_at for job in jobs if job.status is Status.SCHEDULED]
        if scheduled:
            self._on_scheduled(min(scheduled))

    def offer_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Run these as soon as there is a slot; tell other processes when there is none here."""
        ours = [candidate for candidate in candidates if self.poller.serves(candidate.queue)]
        taken = self._ready.offer(ours)
        if not taken:
            self.poller.missed()
        self._wake()
        if candidates and (self._stopping or not taken or len(ours) < len(candidates) or self._is_saturated()):
            self._jobs.signal(candidates, at=self._clock.now())

    def interrupt(self, job_id: JobId) -> None:
        """Ask this job's attempt to stop, if it runs here."""
        for claim, attempt in self._running.items():
            if claim.job_id == job_id:
                attempt.stop(Stop.CANCEL_REQUESTED)

    # What others want to know

    @property
    def running(self) -> list[Claim]:
        """The running table: every attempt whose outcome is not acknowledged yet."""
        return list(self._running)

    def notice(self, notices: Iterable[tuple[Claim, Notice]]) -> None:
        """Act on what the lease keeper found out."""
        for claim, notice in notices:
            if attempt := self._running.get(claim):
                attempt.stop(Stop.LEASE_LOST if notice is Notice.LOST else Stop.CANCEL_REQUESTED)

    async def release_orphans(self) -> None:
        """Give back what was carried out under doubtful leases only after we had looked what they won."""
        oldest = self._clock.monotonic() - LATE_CLAIM_SECONDS
        leases = {lease_id for lease_id, settled_at in self._doubtful.items() if settled_at <= oldest}
        if leases:
            released = await self._jobs.release_orphans(leases, self.running, at=self._clock.now())
            for lease_id in leases:
                del self._doubtful[lease_id]
            self.offer_candidates(released)
            log.info("doubtful claims closed", leases=len(leases), released=len(released))

    # Claiming

    def _is_saturated(self) -> bool:
        return len(self._ready) > self._free_slots()

    def _free_slots(self) -> int:
        if len(self._running) - self._executor.performing >= MAX_UNACKNOWLEDGED:
            return 0
        return self._options.slots - self._reserved - self._executor.slots_taken

    def _wake(self) -> None:
        if not self._pump_is_due and not self._stopping:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        while not self._stopping and self._claims_in_flight < CLAIMS_IN_FLIGHT:
            count = min(self._free_slots(), len(self._ready), self._claimed_in_time)
            if count <= 0 or (self._claims_in_flight and count < self._worth_another_claim):
                break
            busy = self._busy.ids
            candidates = [each for each in self._ready.take(count) if each.id not in busy]
            if candidates:
                self._begin_claim(candidates)
        self.poller.taken()

    def _begin_claim(self, candidates: Sequence[Candidate]) -> None:
        self._claims_in_flight += 1
        self._reserved += len(candidates)
        self._busy.take(candidates)
        self._spawn(self._claim(candidates))

    async def _claim(self, candidates: Sequence[Candidate]) -> None:
        now, ids = self._clock.now(), [candidate.id for candidate in candidates]
        lease = Lease(id=self._identifiers.lease_id(), worker_id=self._worker_id, expires_at=now + self._options.lease)
        won = Claimed([])
        try:
            won = await self._claim_until_settled(ids, lease, now)
        finally:
            self._claims_in_flight -= 1
            self._reserved -= len(ids) - len(won.jobs)
            self._let_go(candidates, won, doubtful=lease.id in self._doubtful)
        self._observer.claimed(asked=len(ids), won=len(won.jobs))
        self._start_all(won.jobs, lease)
        for claim, reason in won.unreadable:
            self._spawn(self._quarantine(claim, reason))
        self._wake()

    def _let_go(self, candidates: Sequence[Candidate], won: Claimed, *, doubtful: bool) -> None:
        """What was not won is free again, or somebody else's."""
        kept = {job.id for job in won.jobs}
        lost = [candidate for candidate in candidates if candidate.id not in kept]
        if doubtful:
            # It may not even have been carried out; what is still pending keeps its place in the order.
            self._busy.put_back(lost)
            self._ready.offer(lost)
            return
        self._busy.lose(lost)
        if self._contention.observe(asked=len(candidates), won=len(kept)):
            self.poller.lost()

    async def _claim_until_settled(self, ids: Sequence[JobId], lease: Lease, now: datetime) -> Claimed:
        try:
            won = await self._jobs.claim(ids, lease, at=now)
            self._claim_pause = FIRST_RETRY_SECONDS
            return won
        except Unavailable as error:
            log.warning("claim unanswered", lease_id=lease.id, jobs=len(ids), reason=str(error))
        won = await self._until_answered(lambda: self._jobs.claimed(ids, lease.id)) or Claimed([])
        self._doubtful[lease.id] = self._clock.monotonic()
        if not won.jobs:
            await self._pause_claiming()
        return won

    async def _pause_claiming(self) -> None:
        pause, self._claim_pause = self._claim_pause, min(self._claim_pause * 2, LAST_CLAIM_PAUSE_SECONDS)
        if not self._stopping:
            await self._rest(pause)

    async def _until_answered(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        pause = FIRST_RETRY_SECONDS
        while not self._giving_up:
            try:
                return await ask()
            except (Unavailable, QueueFull):
                await self._rest(pause)
                pause = min(pause * 2, LAST_RETRY_SECONDS)
        return None

    async def _rest(self, seconds: float) -> None:
        """Wait for at most so long and at least half of it, so that many do not come back in the same moment."""
        await asyncio.sleep(seconds * (0.5 + self._random.random() / 2))

    async def _quarantine(self, claim: Claim, reason: str) -> None:
        log.error("job unreadable", job_id=claim.job_id, reason=reason)
        await self._write(claim, lambda: self._jobs.quarantine(claim, reason, at=self._clock.now()))

    # Running

    def _start_all(self, jobs: Sequence[Job], lease: Lease) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        left = lease.expires_at - now
        # Answered late, they may be taken by another before they can be renewed.
        late = left < self._options.lease / LEAST_OF_LEASE
        if late and jobs:
            self._claimed_in_time = max(1, len(jobs) // 2)
        elif left > self._options.lease * (1 - 1 / LEAST_OF_LEASE):
            self._claimed_in_time = min(MAX_CLAIM, 2 * self._claimed_in_time)
        for job in jobs:
            attempt = Attempt(job, Claim(job.id, lease.id), monotonic, self._executor.timeout_seconds(job))
            renew_until = now + self._options.lease + timedelta(seconds=attempt.limit_seconds)
            self._keeper.add(attempt.claim, expires_at=lease.expires_at, renew_until=renew_until)
            self._start(attempt, unwanted=self._stopping or late)

    def _start(self, attempt: Attempt, *, unwanted: bool) -> None:
        job = attempt.job
        self._running[attempt.claim] = attempt
        self._observer.started(job)
        if unwanted:
            attempt.stop(Stop.SHUTDOWN)
        elif job.cancel_requested_at is not None:
            attempt.stop(Stop.CANCEL_REQUESTED)
        self._spawn(self._run(attempt))

    async def _run(self, attempt: Attempt) -> None:
        self._reserved -= 1  # from here on the executor counts its slot
        handed_on = False
        try:
            ending = await self._executor.perform(attempt)
            self._wake()
            if ending is None:
                self._observer.lease_lost(attempt.job)
                log.warning("job lease lost", **attempt.log_fields(self._clock))
            else:
                handed_on = await self._report(attempt, ending)
        finally:
            if not handed_on:
                self._leave(attempt)

    def _leave(self, attempt: Attempt) -> None:
        self._keeper.remove(attempt.claim)
        self._progress.forget(attempt.claim)
        del self._running[attempt.claim]
        self._busy.leave(attempt.job)
        self._wake()

    # Reporting

    async def _report(self, attempt: Attempt, ending: Ending) -> bool:
        """See to it that the outcome is written. Returns whether it, and the attempt, was handed on for that."""
        if self._log.holds(attempt.job.id):
            # First, so that whoever sees the outcome sees the log as well; and what is said of the progress.
            await self._log.flush(attempt.job.id)
        if self._progress.holds(attempt.claim):
            await self._progress.finish(attempt.claim)
        if isinstance(ending, Completed):
            self._complete_soon(attempt, ending)
            return True
        if isinstance(ending, Retry) and attempt.job.attempts_left == 0:
            ending = Failed(ending.error)
        await self._report_alone(attempt, ending)
        return False

    async def _report_alone(self, attempt: Attempt, ending: Ending) -> None:
        if await self._write(attempt.claim, lambda: self._record(attempt, ending)):
            if isinstance(ending, Released):
                self._wait_again(attempt.job)
            else:
                self._busy.finish([attempt.job])
            self._tell([(attempt, ending)])
        else:
            self._observer.lease_lost(attempt.job)

    def _wait_again(self, job: Job) -> None:
        """It was given back: it keeps its place here, and others hear of it where it cannot be run."""
        self.offer_candidates([Candidate.of(job)])

    def _complete_soon(self, attempt: Attempt, ending: Completed) -> None:
        # All that end in one turn of the event loop go together: one call, one future, one task for them all.
        if not self._completed:
            self._spawn(self._complete_together())
        self._completed.append((attempt, ending))

    async def _complete_together(self) -> None:
        completed, self._completed = self._completed, []
        try:
            pairs = [(attempt.claim, ending.result) for attempt, ending in completed]
            answers = await self._jobs.complete_many(pairs, at=self._clock.now())
            settled = list(zip(completed, answers, strict=True))
        except BaseException:  # cancelled, or a bug of ours: the rescue will find them
            for attempt, _ in completed:
                self._leave(attempt)
            raise
        written = [each for each, answer in settled if answer is None]
        self._busy.finish(attempt.job for attempt, _ in written)
        for attempt, _ in written:
            self._leave(attempt)
        for each, answer in settled:
            if answer is not None:
                self._spawn(self._complete_alone(*each))
        self._tell(written)

    async def _complete_alone(self, attempt: Attempt, ending: Completed) -> None:
        """What was not acknowledged together is repeated by itself, until that is settled."""
        try:
            await self._report_alone(attempt, ending)
        finally:
            self._leave(attempt)

    def _tell(self, ended: Sequence[tuple[Attempt, Ending]]) -> None:
        line = log.bind()  # the configuration is looked up once for them all
        shown = line.is_enabled_for(logging.INFO)
        now = self._clock.monotonic()
        for attempt, ending in ended:
            self._observer.ended(attempt.job, OUTCOMES[type(ending)], now - attempt.started)
            if shown:
                line.info(f"job {VERBS[type(ending)]}", **attempt.log_fields(self._clock), **_error_fields(ending))
            if isinstance(ending, Completed | Failed | Cancelled):
                self._on_finished(attempt.job.id)

    async def _write(self, claim: Claim, write: Callable[[], Awaitable[None]]) -> bool:
        """Repeat a write until it is acknowledged (True), or refused because the lease is lost (False)."""

        async def acknowledged() -> bool:
            await write()
            return True

        try:
            return await self._until_answered(acknowledged) is not None
        except LeaseLost:
            log.warning("job outcome refused, lease lost", job_id=claim.job_id, lease_id=claim.lease_id)
            return False

    async def _record(self, attempt: Attempt, ending: Ending) -> None:
        claim, now = attempt.claim, self._clock.now()
        match ending:
            case Completed(result):
                await self._jobs.complete(claim, result, at=now)
            case Retry(failure, after_seconds):
                run_at = self._retry_at(attempt.job, after_seconds, now)
                await self._jobs.retry(claim, self._error(attempt, failure, now), run_at=run_at, at=now)
                self._on_scheduled(run_at)
            case Failed(failure):
                await self._jobs.fail(claim, self._error(attempt, failure, now), at=now)
            case Snoozed(seconds):
                until = _later(now, seconds)
                await self._jobs.snooze(claim, until=until, at=now)
                self._on_scheduled(until)
            case Cancelled():
                await self._jobs.abandon(claim, at=now)
            case Released():
                await self._jobs.release(claim, at=now)
            case _:
                assert_never(ending)

    def _retry_at(self, job: Job, after_seconds: float | None, now: datetime) -> datetime:
        if after_seconds is not None:
            return _later(now, after_seconds)
        return next_run_at(now, job.retry_count, self._executor.backoff(job), random=self._random)

    def _error(self, attempt: Attempt, failure: Failure, now: datetime) -> AttemptError:
        return AttemptError(
            attempt=attempt.job.retry_count,
            at=now,
            type=failure.type,
            message=failure.message,
            worker_id=self._worker_id,
        )

    # Stopping

    async def stop(self, *, grace_seconds: float, flush_seconds: float) -> None:
        """Claim nothing more, give what runs the grace period, give the rest back, write every outcome.

        Outcomes that MongoDB does not take within `flush_seconds` after that are left to the rescue."""
        self._stopping = True
        await self._until_idle(grace_seconds)
        for attempt in list(self._running.values()):
            attempt.stop(Stop.SHUTDOWN)
        await self._until_idle(flush_seconds)
        self._giving_up = True
        if left := await end(self._tasks):
            ids = [claim.job_id for claim in self.running[:SHOWN_STUBBORN]]
            log.warning("tasks do not end when they are cancelled", count=len(left), job_ids=ids)
        await self._log.aclose()
        self._executor.close()

    async def _until_idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        # Not in the context of whichever request happened to bring the job.
        task = asyncio.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours. Its slots are free again, its job is no longer renewed, and the rescue will find it.
            log.error("worker pool step failed", exc_info=error)


def _later(now: datetime, seconds: float) -> datetime:
    return to_milliseconds(now + timedelta(seconds=min(seconds, LONGEST_DELAY_SECONDS)))


def _error_fields(ending: Ending) -> dict[str, object]:
    match ending:
        case Retry(failure) | Failed(failure):
            return {"error_type": failure.type, "error": failure.message}
        case _:
            return {}
