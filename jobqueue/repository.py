"""What the service and the engine may ask of the store: one verb per move, each fenced by its guard.

This is the port; `mongo/` is the adapter. Promises of every implementation:

- A verb that returns has had its write acknowledged by a majority, journalled. `Unavailable` means that
  nothing is known to have been written; `OutcomeUnknown` that it may have been.
- Every write of an attempt is conditional on `(id, lease id)` and raises `LeaseLost` when they do not match.
- Verbs for many jobs treat each job by itself: one bad item never fails its neighbours.
- `at` and `now` are the caller's clock (the server's time); the store never looks at its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from jobqueue.errors import JobQueueError
from jobqueue.job import (
    AttemptError,
    Candidate,
    Claim,
    Document,
    Instant,
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


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list is to show: those created from `created_after` on and before `created_before`. None is any."""

    status: Status | None = None
    type: str | None = None
    queue: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest first, and the `seq` from which the next page goes on (None: that was all)."""

    jobs: Sequence[Job]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class Window:
    """Candidates in claim order. `complete` means that nothing was left behind them."""

    candidates: Sequence[Candidate]
    complete: bool


class QueueSignal(NamedTuple):
    """A hint that jobs of a queue became pending. `candidates` are all that this signal is about, or None when those
    were too many to tell: then the store knows."""

    queue: str
    candidates: Sequence[Candidate] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim won. `unreadable` were won too but cannot be understood: (claim, why)."""

    jobs: Sequence[Job]
    unreadable: Sequence[tuple[Claim, str]] = ()


@dataclass(frozen=True, slots=True)
class Rescued:
    """How many expired attempts a sweep took back, and where they went."""

    requeued: Sequence[Candidate] = ()
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class Promoted:
    """The jobs that became pending, and when the next one is due (None: none is known)."""

    candidates: Sequence[Candidate]
    next_due: datetime | None


@dataclass(frozen=True, slots=True)
class QueueCount:
    """One queue as `/queues` shows it."""

    name: str
    pending: int
    scheduled: int
    processing: int
    oldest_pending_at: datetime | None

    def oldest_age_seconds(self, now: datetime) -> float | None:
        """For how long its longest due job has been waiting; None when none is."""
        if self.oldest_pending_at is None:
            return None
        return max(0.0, (now - self.oldest_pending_at).total_seconds())


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole database in numbers. Every job that was ever accepted counts once, in the state in which it stands
    or stood when it was deleted; only what is deleted before it ended is no longer counted."""

    present: Mapping[Status, int]
    """Jobs that are there, all states named."""
    removed: Mapping[Status, int]
    """Finished jobs that were pruned or deleted, all finished states named."""
    retried: int
    """Attempts that were put back to be tried again."""
    idempotency_keys: int

    @property
    def processed(self) -> int:
        """Jobs that completed."""
        return self._ended(Status.COMPLETED)

    @property
    def failed(self) -> int:
        """Jobs that ended failed and were not put back since."""
        return self._ended(Status.FAILED)

    @property
    def cancelled(self) -> int:
        """Jobs that were cancelled and not put back since."""
        return self._ended(Status.CANCELLED)

    def _ended(self, status: Status) -> int:
        return self.present[status] + self.removed[status]


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What is in the database, as of `now`."""

    totals: Totals
    queues: Sequence[QueueCount]
    now: datetime


class Revision(NamedTuple):
    """A job as of one of its moves: two that are equal show the same job, but for its lease."""

    status: Status
    updated_at: datetime


CROWD = 20
"""So many jobs that became pending at once are better looked for than told of one by one."""

WORKER_SILENCE_SECONDS = 60.0
"""A process that has not shown itself for this long is taken for dead. It does so every quarter of a minute."""


class WorkerRecord(Document):
    """One live process with workers, as `/workers` shows it. Gone when the process stops."""

    id: WorkerId
    host: str
    pid: int
    version: str
    queues: list[str]
    slots: int
    running: list[str]
    started_at: Instant
    heartbeat_at: Instant


@dataclass(frozen=True, slots=True)
class Features:
    """What the server at the other end can do, found out by asking it."""

    name: str
    version: str
    replica_set: bool = False
    change_streams: bool = False
    embedded: bool = False
    sharded: bool = False
    transactions: bool = False
    pipeline_updates: bool = False


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What the primary answered to `hello`: its clock, how long the answer took, and which server it is."""

    local_time: datetime
    round_trip_seconds: float
    primary: str


@dataclass(frozen=True, slots=True)
class Held:
    """Which lease a job stands under now (None: under none), and whether it was asked to stop."""

    lease_id: LeaseId | None
    cancel_requested: bool


class LeaseStore(Protocol):
    """What the lease thread needs, synchronously, over a connection of its own. Each raises `Unavailable`."""

    def hello(self) -> ServerHello:
        """Ask the primary for its clock."""
        ...

    def renew(self, claims: Sequence[Claim], expires_at: datetime) -> None:
        """renew: stays processing, only by the lease that claimed it; never to an earlier time."""
        ...

    def held(self, job_ids: Sequence[JobId]) -> Mapping[JobId, Held]:
        """How these jobs stand now; those that are gone are left out."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class JobRepository(Protocol):
    """The store of jobs. Verbs of moves carry the names of `job.MOVES`."""

    @property
    def features(self) -> Features:
        """What the server can do; known after `prepare`."""
        ...

    async def prepare(self) -> None:
        """Connect, find out about the server, create the indexes.

        Raises `SchemaConflict` when an index of our name has another definition, `Unavailable`."""
        ...

    async def check(self) -> None:
        """Make sure that the primary answers and that the indexes are there. Raises `Unavailable`."""
        ...

    async def aclose(self) -> None:
        """Flush what waits in group commits, then disconnect."""
        ...

    # Clients

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Job | JobQueueError]:
        """enqueue: store new jobs. Repeating it after a lost answer finds its own documents by their `insert_id`.

        For each, in order, the stored job or its error: `DuplicateJob`, `InvalidJob` (cannot be encoded), `QueueFull`
        (the line is too long), `Unavailable`, `OutcomeUnknown`, `ShuttingDown`."""
        ...

    async def get(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""
        ...

    async def list(self, which: JobFilter, *, before: int | None, limit: int, max_bytes: int) -> Page:
        """Jobs newest first, from just before the sequence number `before`. A page ends early at `max_bytes`.
        A document that cannot be read is shown with an error in its `errors`; it never fails the page."""
        ...

    async def count(self, status: Status, *, limit: int) -> int:
        """How many jobs stand in `status`, counted up to `limit`."""
        ...

    async def count_waiting(self, limit: int) -> int:
        """How many jobs are pending or scheduled, counted up to `limit`."""
        ...

    async def count_waiting_in(self, queues: Sequence[str], limit: int) -> Sequence[int]:
        """The same for each of these queues, in their order."""
        ...

    async def read_meter(self, name: str) -> int:
        """A number that all processes share, 0 at first."""
        ...

    async def move_meter(self, name: str, *, seen: int, to: int) -> bool:
        """Set it, only while it is as it was seen. Returns whether it was."""
        ...

    async def count_by_status(self) -> Mapping[Status, int]:
        """How many jobs stand in each state, all states named. Costs what it counts. The numbers are those of one
        moment where the server has snapshot reads; elsewhere a job that moves meanwhile may be missed or doubled."""
        ...

    async def get_many(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """These jobs by their ids; those that are not there are left out."""
        ...

    async def revisions(self, job_ids: Collection[str]) -> Mapping[str, Revision]:
        """Where these jobs stand, and when each was last moved or showed progress; those gone are left out."""
        ...

    async def queues(self) -> Sequence[QueueCount]:
        """Every known queue. May be a second old."""
        ...

    async def totals(self) -> Totals:
        """The whole database in numbers, from indexes and counters. May be a second old, older where it is slow."""
        ...

    async def logs(self, job_id: str) -> Sequence[LogLine]:
        """What the attempts of this job logged, the oldest first; nothing for a job that did not, or is not there."""
        ...

    async def cancel(self, job_id: str, *, at: datetime) -> Job:
        """cancel: waiting jobs end; a running one gets `cancel_requested_at`, once.

        Raises `JobNotFound`, `IllegalMove` (finished)."""
        ...

    async def redrive(self, job_id: str, *, at: datetime) -> Job:
        """redrive: put a failed or cancelled job back. Raises `JobNotFound`, `IllegalMove`."""
        ...

    async def redrive_many(self, which: JobFilter, *, at: datetime, limit: int) -> Sequence[Candidate]:
        """redrive, many: the newest `limit` failed jobs that match; what another caller takes first is left out."""
        ...

    async def delete_dead_letters(self, which: JobFilter, *, limit: int) -> int:
        """Remove the newest `limit` failed jobs that match; returns how many. One that is redriven first stays."""
        ...

    async def delete(self, job_id: str) -> None:
        """Remove a job that is not running, and its log; a finished one stays counted in `totals`.

        Raises `JobNotFound`, `IllegalMove`."""
        ...

    # Dispatch

    async def known_queues(self) -> Sequence[str]:
        """The name of every queue that has, or lately had, jobs."""
        ...

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        """Pending jobs in claim order: from the head, or from `after` on (which may come again)."""
        ...

    def signal(self, candidates: Collection[Candidate], *, at: datetime) -> None:
        """Tell other processes that these became pending. A hint: it returns at once, and may get lost."""
        ...

    def signals(self, *, on_open: Callable[[], None]) -> AsyncGenerator[QueueSignal, None]:
        """What becomes pending from `on_open` on, stored or signalled by other processes. The server is asked for the
        next when the one before has been dealt with. Ends when so much came at once that a look tells of it better, and
        where the server has no change streams; raises `Unavailable` when the stream breaks. Polling does without."""
        ...

    # The engine

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        """claim: pending -> processing for those of `job_ids` that are still pending, under one new lease.

        Attempt number, payload and flags are those of the moment of the write. Raises `Unavailable` when the
        answer was lost: then `claimed` settles what was won, and the lease id must not be used again."""
        ...

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        """What the claim with this lease id won, if anything."""
        ...

    async def complete(self, claim: Claim, result: JsonValue | None, *, at: datetime) -> None:
        """complete: processing -> completed, only by the lease that claimed it. Raises `LeaseLost`."""
        ...

    async def complete_many(
        self, completed: Sequence[tuple[Claim, JsonValue | None]], *, at: datetime
    ) -> Sequence[BaseException | None]:
        """The same for many, each with its result: what it would raise for each, None where it is written."""
        ...

    async def retry(self, claim: Claim, error: AttemptError, *, run_at: datetime, at: datetime) -> None:
        """retry: processing -> scheduled for `run_at`, or cancelled when that was asked. Raises `LeaseLost`."""
        ...

    async def fail(self, claim: Claim, error: AttemptError, *, at: datetime) -> None:
        """fail: processing -> failed. Raises `LeaseLost`."""
        ...

    async def snooze(self, claim: Claim, *, until: datetime, at: datetime) -> None:
        """snooze: processing -> scheduled; the attempt does not count. Raises `LeaseLost`."""
        ...

    async def release(self, claim: Claim, *, at: datetime) -> None:
        """release: processing -> pending; the attempt does not count. Raises `LeaseLost`."""
        ...

    async def abandon(self, claim: Claim, *, at: datetime) -> None:
        """abandon: processing -> cancelled, by the worker that was asked to stop. Raises `LeaseLost`."""
        ...

    async def report_progress(self, claim: Claim, progress: Progress, *, at: datetime) -> None:
        """Show how far a running job is. Raises `LeaseLost`."""
        ...

    async def append_logs(self, job_id: str, lines: Sequence[LogLine]) -> None:
        """Keep these with the job: the newest `MAX_LOG_LINES`, together at most `MAX_LOG_BYTES`. Not fenced: what an
        attempt logs after it lost its lease is kept too. Never repeated, so what raises `Unavailable` may be lost."""
        ...

    async def quarantine(self, claim: Claim, reason: str, *, at: datetime) -> None:
        """fail, for a document that cannot be read: its errors are replaced by the reason. Raises `LeaseLost`."""
        ...

    # Maintenance

    async def promote(self, *, now: datetime, limit: int) -> Promoted:
        """promote: scheduled -> pending for what is due."""
        ...

    async def rescue(
        self, *, cutoff: datetime, at: datetime, limit: int, still: Callable[[], bool] = lambda: True
    ) -> Rescued:
        """rescue: processing -> pending (or failed, or cancelled) where the lease seen expired before `cutoff`;
        the lease id *and* its expiry are in the write, so a lease renewed meanwhile is left alone.

        `still` is asked when they were seen: whether that may still be done, and by this `cutoff`."""
        ...

    async def release_orphans(
        self, lease_ids: Collection[LeaseId], known: Collection[Claim], *, at: datetime
    ) -> Sequence[Candidate]:
        """release what stands under these leases but is not in `known`: claims whose answers were lost, and which
        were carried out after `claimed` had looked. The leases must not be in use for a claim any more.

        Returns what waits again."""
        ...

    async def prune(self, status: Status, *, finished_before: datetime, limit: int) -> int:
        """Delete finished jobs older than that, and their logs; they stay counted in `totals`.

        Returns how many, less than `limit` when none are left."""
        ...

    async def prune_excess(self, *, keep: int, limit: int) -> int:
        """Delete the longest finished jobs beyond the newest `keep`: dead letters only when all the others are gone."""
        ...

    async def prune_signals(self, *, unused_since: datetime) -> int:
        """Forget queues that nobody used since then and that hold no waiting job."""
        ...

    async def adopt(self, *, at: datetime, limit: int) -> Sequence[Candidate]:
        """Fill in what documents made by hand lack (`seq`, `queue`, ...), and fail those beyond repair."""
        ...

    async def save_counts(self) -> None:
        """Write what this process counted since the last time; without news, nothing is written."""
        ...

    async def fold_counts(self) -> int:
        """Add what silent processes had counted to the one total; returns of how many."""
        ...

    async def beat(self, worker: WorkerRecord) -> None:
        """Show that this process lives."""
        ...

    async def farewell(self, worker_id: WorkerId) -> None:
        """Take this process off the list."""
        ...

    async def workers(self, *, since: datetime) -> Sequence[WorkerRecord]:
        """The processes that showed a sign of life since then."""
        ...
