"""Stands between the engine and its repository, changes nothing, and notes what was asked and what was told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from simulated.history import History
from simulated.server import SimulatedServer

from jobqueue.errors import JobQueueError, LeaseLost, OutcomeUnknown, Unavailable
from jobqueue.job import Candidate, Claim, Job, JobId, JsonValue, Lease, LeaseId, Status
from jobqueue.mongo import MongoJobRepository
from jobqueue.repository import Claimed, Window
from jobqueue.settings import Settings
from jobqueue.worker import WorkerPool

OUTCOMES = frozenset({"complete", "retry", "fail", "snooze", "release", "abandon", "quarantine"})


class Witness:
    """The repository of one process, as its engine sees it."""

    def __init__(
        self, jobs: MongoJobRepository, process: str, history: History, server: SimulatedServer, *, settings: Settings
    ) -> None:
        self.jobs = jobs
        self.pool_of: Callable[[], WorkerPool | None] = lambda: None
        self._process = process
        self._history = history
        self._server = server
        self._slots = settings.workers
        self._poll_seconds = settings.poll_seconds
        self._claiming: dict[LeaseId, int] = {}
        self._reported: set[Claim] = set()
        self._queues_asked_at = float("-inf")
        self._queues_answered_at = float("-inf")
        self._head_seen_at: dict[str, float] = {}
        self._others_seen_at = float("-inf")
        self._busy_then: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.jobs, name)
        return self._watched(name, verb) if name in OUTCOMES else verb

    # Inserts

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Job | JobQueueError]:
        answers = await self.jobs.insert_many(jobs)
        for job, answer in zip(jobs, answers, strict=True):
            self._answered(job, answer)
        return answers

    def _answered(self, job: Job, answer: Job | JobQueueError) -> None:
        if isinstance(answer, Job):
            kind = "is told: stored"
        else:
            kind = "is told: unknown" if isinstance(answer, OutcomeUnknown) else "is told: refused"
        reason = type(answer).__name__
        self._note(kind, job=job.id, insert_id=job.insert_id, reason=reason)

    # Looks and claims

    async def known_queues(self) -> Sequence[str]:
        asked_at = self._now()
        queues = await self.jobs.known_queues()
        self._queues_asked_at, self._queues_answered_at = asked_at, self._now()
        return queues

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        began_at, new_since = self._now(), self._new_since()
        window = await self.jobs.candidates(queues, after=after, limit=limit)
        if after is None:
            self._head_seen_at = dict.fromkeys(queues, began_at)
            self._others_seen_at = new_since
            pool = self.pool_of()
            self._busy_then = frozenset(pool._busy.ids) if pool is not None else frozenset()
        return window

    def _new_since(self) -> float:
        """A look that begins now may pass over a queue that is new since then: since it was asked for them, and that is
        no longer ago than a look may be."""
        earliest = self._now() - self._poll_seconds
        return self._queues_asked_at if self._queues_answered_at > earliest else earliest

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        self._begin(job_ids, lease.id)
        try:
            won = await self.jobs.claim(job_ids, lease, at=at)
        except Unavailable as error:
            self._note("claim unanswered", lease=lease.id, reason=error)
            raise
        self._won(job_ids, lease.id, won)
        return won

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        won = await self.jobs.claimed(job_ids, lease_id)
        self._won(job_ids, lease_id, won)
        return won

    def _begin(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> None:
        pool = self.pool_of()
        assert pool is not None, "a process without a pool claims"
        self._note(
            "claims",
            lease=lease_id,
            jobs=",".join(job_ids),
            slots=self._slots,
            asked=len(job_ids),
            taken=sum(self._claiming.values()) + len(self._unreported(pool)),
            passed_over=",".join(self._passed_over(job_ids, pool)) or None,
        )
        self._claiming[lease_id] = len(job_ids)

    def _unreported(self, pool: WorkerPool) -> set[Claim]:
        """The attempts that have not ended yet. Those whose task has ended are on their way to be reported."""
        ended = {claim for claim, each in pool._running.items() if each.context is not None and each.task is None}
        return set(pool.running) - self._reported - ended

    def _won(self, job_ids: Sequence[JobId], lease_id: LeaseId, won: Claimed) -> None:
        self._claiming.pop(lease_id, None)
        self._note("won", lease=lease_id, jobs=",".join(job.id for job in won.jobs))

    def _passed_over(self, job_ids: Sequence[JobId], pool: WorkerPool) -> list[str]:
        """Jobs of a higher priority than one of these, which this process has seen and could have claimed."""
        jobs = self._server.jobs()
        # What was taken before the answer to the last look was there is claimed by what the one before it showed.
        taken_since = [job_id for job_id in job_ids if job_id in jobs and job_id not in self._busy_then]
        lowest = min((jobs[job_id]["priority"] for job_id in taken_since), default=None)
        if lowest is None:
            return []
        return [
            job_id
            for job_id, job in jobs.items()
            if job["status"] == Status.PENDING
            and job["priority"] > lowest
            and job_id not in pool._busy.ids
            and job_id not in self._busy_then
            and self._server.pending_since.get(job_id, float("inf"))
            < self._head_seen_at.get(job["queue"], self._others_seen_at)
        ]

    # Outcomes

    def _watched(self, name: str, verb: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def watched(claim: Claim, *args: Any, **kwargs: Any) -> None:
            self._reports(name, claim)
            try:
                await verb(claim, *args, **kwargs)
            except LeaseLost as error:
                self._is_told(name, claim, error)
                raise
            self._is_told(name, claim, None)

        return watched

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        claims = [claim for claim, _ in completed]
        for claim in claims:
            self._reports("complete", claim)
        answers = await self.jobs.complete_many(completed, at=at)
        for claim, answer in zip(claims, answers, strict=True):
            self._is_told("complete", claim, answer)
        return answers

    def _reports(self, verb: str, claim: Claim) -> None:
        self._reported.add(claim)
        self._note("reports", verb=verb, job=claim.job_id, lease=claim.lease_id)

    def _is_told(self, verb: str, claim: Claim, answer: BaseException | None) -> None:
        if answer is None:
            self._note("is told: written", verb=verb, job=claim.job_id, lease=claim.lease_id)
        elif isinstance(answer, LeaseLost):
            self._note("is told: lost", verb=verb, job=claim.job_id, lease=claim.lease_id)

    def _now(self) -> float:
        return self._server.loop_time()

    def _note(self, what: str, **fields: object) -> None:
        self._history.add(self._process, what, **fields)
