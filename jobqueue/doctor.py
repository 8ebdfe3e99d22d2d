"""An audit of a live database: which invariants are broken there, what that means, and what to do.

`examine` only looks; `treat` mends what can be mended without losing anything, each mend conditional on what
was seen. The store is behind the small port `Inspector`. Every look is bounded: of the jobs in each state the
newest `limit`, and no call longer than half a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Protocol

from jobqueue.job import FINISHED, WAITING, LeaseId, Status
from jobqueue.repository import WORKER_SILENCE_SECONDS, Features

DEFAULT_LIMIT = 10_000
MAX_EXAMPLES = 5
COUNTS = 5
"""How often to count before believing that two numbers disagree: on a live database they change meanwhile."""
LEASE_MARGIN = timedelta(seconds=5)
WORST_OFFSET = timedelta(seconds=1)
OLDEST_SERVER = (7, 0)
AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must not be: what it means where it is, and what to do about it."""

    name: str
    means: str
    remedy: str
    fixable: bool = False


@dataclass(frozen=True, slots=True)
class Specimen:
    """What matters of one job's document. `unreadable` says why it cannot be understood as a job, `has_time` whether
    `runAt` is a date; `run_at` is what was meant by it, when it says anything."""

    id: str
    raw_id: object
    status: object
    retry_count: int
    max_retries: int
    has_seq: bool
    has_time: bool
    raw_run_at: object
    run_at: datetime | None
    is_finished_at: bool
    raw_lease: object
    lease_id: LeaseId | None
    lease_expires_at: datetime | None
    cancel_requested: bool
    unreadable: str | None

    @property
    def known_status(self) -> Status | None:
        """The state, if it is one."""
        return next((status for status in Status if status == self.status), None)


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index that is not as it should be: `missing`, `different` or `foreign` (nobody here uses it)."""

    collection: str
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server at the other end is, and how far its clock is ahead of this machine's."""

    features: Features
    retry_writes: bool
    offset: timedelta
    now: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """The jobs, counted twice: by state, from the index, and all together."""

    by_status: int
    total: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One check that failed, how often, and the first few things that it failed for."""

    check: Check
    count: int
    examples: Sequence[str]


@dataclass(frozen=True, slots=True)
class Examination:
    """What was looked at, and what was found."""

    server: ServerState
    documents: int
    limit: int
    findings: Sequence[Finding]
    specimens: Mapping[str, Sequence[Specimen]]
    indexes: Sequence[IndexState]
    queues: Sequence[str]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "healthy": self.healthy,
            "server": {**asdict(self.server.features), "clockOffsetSeconds": self.server.offset.total_seconds()},
            "examined": {"documents": self.documents, "limitPerState": self.limit},
            "findings": [
                {**asdict(finding.check), "count": finding.count, "examples": list(finding.examples)}
                for finding in self.findings
            ],
        }


class Inspector(Protocol):
    """What the doctor needs of the store. Each raises `Unavailable`."""

    async def server(self) -> ServerState:
        """Ask the server what it is, and for the time."""
        ...

    async def indexes(self) -> Sequence[IndexState]:
        """The indexes that are not as they should be."""
        ...

    async def specimens(self, *, limit: int) -> Sequence[Specimen]:
        """The newest `limit` documents of each state, of no known state, and of none."""
        ...

    async def counts(self) -> Counts:
        """How many jobs there are, in two ways."""
        ...

    async def unknown_queues(self) -> Sequence[str]:
        """Queues that hold waiting jobs and that no worker would look into."""
        ...

    async def has_workers(self, *, since: datetime) -> bool:
        """Whether any worker showed itself since then."""
        ...

    async def repair_indexes(self, wrong: Sequence[IndexState]) -> None:
        """Drop those that are in the way and create ours. Raises `Unavailable`, `SchemaConflict`."""
        ...

    async def introduce(self, queues: Sequence[str], *, at: datetime) -> None:
        """Make these queues known."""
        ...

    async def mend(self, check: str, specimen: Specimen, *, at: datetime) -> bool:
        """Repair one document, if it is still as it was seen. Returns whether it was."""
        ...


LEASE_EXPIRED = Check(
    "lease-expired",
    "a worker died or is cut off, and nobody has taken its jobs back since",
    "start a worker, or restart one whose log says `no contact with MongoDB`: it takes them back within a lease",
)
NO_LEASE = Check(
    "processing-without-lease",
    "nobody runs these jobs, and no worker will take them back: they would stay like this for ever",
    "--fix puts them back into their queue (or to failed or cancelled, as a rescue would); the attempt counts",
    fixable=True,
)
STRAY_LEASE = Check(
    "lease-without-processing",
    "these jobs do not run and yet are leased: somebody changed them by hand",
    "--fix takes the lease away",
    fixable=True,
)
NO_TIME = Check(
    "scheduled-without-time",
    "these jobs wait for a `runAt` that is no date, so they would never run: somebody changed it by hand",
    "--fix makes it the date that is meant, or now where there is none; what cannot be understood it moves to failed",
    fixable=True,
)
WAITING_AND_FINISHED = Check(
    "waiting-with-finishedAt",
    "these jobs wait and yet say that they are finished: somebody put them back by hand",
    "--fix takes `finishedAt` away; to put a job back use POST /jobs/{id}/retry",
    fixable=True,
)
NEVER_PRUNED = Check(
    "finished-without-finishedAt",
    "these jobs are finished but do not say since when, so they are kept for ever",
    "--fix lets their retention begin now",
    fixable=True,
)
USED_UP = Check(
    "attempts-used-up",
    "these jobs wait, but have no attempt left",
    "--fix moves them to failed, where POST /dlq/{id}/retry gives them new attempts",
    fixable=True,
)
TOO_MANY = Check(
    "too-many-attempts",
    "these jobs had more attempts than they were allowed",
    "nothing can be mended any more; unless they were made or changed by hand, please report it as a bug",
)
UNKNOWN_STATUS = Check(
    "unknown-status",
    "no worker understands the state of these documents, so nothing will ever happen to them",
    "--fix moves them to failed with the reason in `errors`",
    fixable=True,
)
UNREADABLE = Check(
    "unreadable",
    "these documents cannot be understood as jobs; a worker that claims one moves it to failed, with the reason",
    "GET /jobs/{id} says in `errors` what is wrong; correct them in mongosh, or delete them",
)
NOT_ADOPTED = Check(
    "not-adopted",
    "these documents were inserted by hand and no worker has made jobs of them yet",
    "start a worker: it does so within seconds; its log says why when it cannot",
)
INDEX_MISSING = Check(
    "index-missing",
    "every look for work reads the whole collection, or unique keys are not unique; /readyz answers 503",
    "--fix creates it; so does the next start of a process that may create indexes",
    fixable=True,
)
INDEX_DIFFERENT = Check(
    "index-different",
    "an index of ours has another definition, or another index has its keys: no process starts",
    "--fix drops it and creates ours; do that while nothing enqueues with keys, which meanwhile are not unique",
    fixable=True,
)
INDEX_FOREIGN = Check(
    "index-foreign",
    "an index that jobqueue does not use: each move of each job pays for it, and it may win over ours",
    "if nobody needs it, drop it in mongosh",
)
UNKNOWN_QUEUE = Check(
    "queue-unknown",
    "jobs wait in queues that workers on all queues (`*`) do not know of",
    "--fix makes the queues known",
    fixable=True,
)
NO_WORKERS = Check(
    "no-workers",
    "jobs wait or run, and no worker has shown itself for a minute",
    "start a worker: `jobqueue worker --tasks your_module`",
)
COUNTS_DISAGREE = Check(
    "counts-disagree",
    "the index over the states and the collection hold different numbers of documents",
    "run `db.jobs.validate()` in mongosh; after an unclean shutdown it also corrects the fast count",
)
CLOCK_OFFSET = Check(
    "clock-offset",
    "this machine's clock is not the server's. Leases and times are corrected for it, other logs are not",
    "synchronise the clocks (chrony, systemd-timesyncd)",
)
STANDALONE = Check(
    "standalone",
    "a single server: no transactions, no change streams, and a broken disk takes every job with it",
    "use a replica set for real work; one member is enough for the features, three for safety",
)
NO_RETRY_WRITES = Check(
    "retry-writes-off",
    "retryWrites=false in the URI makes claims and outcomes fail in every election, to be repeated later",
    "leave it out of JOBQUEUE_MONGODB_URI",
)
OLD_SERVER = Check(
    "old-server",
    "jobqueue is made for MongoDB 7.0 and later",
    "upgrade the server",
)
SHARDED = Check(
    "sharded",
    "unique keys are not unique over the shards of a sharded collection",
    "keep `jobs` unsharded in this cluster, or use a replica set",
)

CHECKS: Sequence[Check] = [check for check in list(globals().values()) if isinstance(check, Check)]

Symptom = Callable[[Specimen, datetime], bool]
"""Whether a document has it; the time is that before which an expired lease is too old."""

SYMPTOMS: Mapping[str, Symptom] = {
    LEASE_EXPIRED.name: lambda one, cutoff: _runs(one) and _owned(one) and _ended_before(one, cutoff),
    NO_LEASE.name: lambda one, _: _runs(one) and not _owned(one),
    STRAY_LEASE.name: lambda one, _: one.known_status not in (None, Status.PROCESSING) and one.raw_lease is not None,
    NO_TIME.name: lambda one, _: one.known_status is Status.SCHEDULED and one.has_seq and not one.has_time,
    WAITING_AND_FINISHED.name: lambda one, _: one.known_status in WAITING and one.is_finished_at,
    NEVER_PRUNED.name: lambda one, _: one.known_status in FINISHED and not one.is_finished_at,
    USED_UP.name: lambda one, _: one.known_status in WAITING and one.retry_count >= one.max_retries,
    TOO_MANY.name: lambda one, _: one.known_status not in WAITING and one.retry_count > one.max_retries,
    UNKNOWN_STATUS.name: lambda one, _: one.has_seq and one.known_status is None,
    UNREADABLE.name: lambda one, _: one.has_seq and one.known_status is not None and one.unreadable is not None,
    NOT_ADOPTED.name: lambda one, _: not one.has_seq,
}
"""What is looked for in each document."""


def _runs(one: Specimen) -> bool:
    return one.known_status is Status.PROCESSING


def _owned(one: Specimen) -> bool:
    return one.lease_id is not None and one.lease_expires_at is not None


def _ended_before(one: Specimen, cutoff: datetime) -> bool:
    return one.lease_expires_at is not None and one.lease_expires_at < cutoff


async def examine(inspector: Inspector, *, lease: timedelta, limit: int = DEFAULT_LIMIT) -> Examination:
    """Look at everything; change nothing. `lease` is the length of a lease. Raises `Unavailable`."""
    server = await inspector.server()
    found = await inspector.specimens(limit=limit)
    specimens = _sorted_by_symptom(found, cutoff=server.now - 2 * lease - LEASE_MARGIN)
    indexes, queues = await inspector.indexes(), await inspector.unknown_queues()
    findings = [
        *_about_server(server),
        *_about_indexes(indexes),
        *_about_queues(queues),
        *_about_documents(specimens),
        *await _about_workers(inspector, found, server.now),
        *await _about_counts(inspector),
    ]
    return Examination(server, len(found), limit, findings, specimens, indexes, queues)


async def treat(inspector: Inspector, examination: Examination) -> Mapping[str, int]:
    """Mend what can be mended, each document only while it is as it was seen; returns how much of what.

    Raises `Unavailable`; `SchemaConflict` when an index cannot be made, such as a unique one over duplicates."""
    at, mended = examination.server.now, dict[str, int]()
    wrong = [index for index in examination.indexes if index.state != "foreign"]
    if wrong:
        await inspector.repair_indexes(wrong)
        for state in sorted({index.state for index in wrong}):
            mended[f"index-{state}"] = sum(index.state == state for index in wrong)
    if examination.queues:
        await inspector.introduce(examination.queues, at=at)
        mended[UNKNOWN_QUEUE.name] = len(examination.queues)
    for check in CHECKS:
        if check.fixable and (specimens := examination.specimens.get(check.name)):
            mended[check.name] = sum([await inspector.mend(check.name, one, at=at) for one in specimens])
    return mended


def _sorted_by_symptom(found: Sequence[Specimen], *, cutoff: datetime) -> Mapping[str, Sequence[Specimen]]:
    by_name = {name: [one for one in found if has(one, cutoff)] for name, has in SYMPTOMS.items()}
    return {name: specimens for name, specimens in by_name.items() if specimens}


def _about_documents(specimens: Mapping[str, Sequence[Specimen]]) -> Sequence[Finding]:
    return [_finding(check, [one.id for one in specimens[check.name]]) for check in CHECKS if check.name in specimens]


def _about_server(server: ServerState) -> Sequence[Finding]:
    features = server.features
    wrong = {
        CLOCK_OFFSET: abs(server.offset) > WORST_OFFSET and f"{server.offset.total_seconds():+.1f} s",
        STANDALONE: not features.replica_set and not features.sharded and f"{features.name} {features.version}",
        SHARDED: features.sharded and f"{features.name} {features.version}",
        # The embedded server is made for neither.
        NO_RETRY_WRITES: not features.embedded and not server.retry_writes and "retryWrites=false",
        OLD_SERVER: not features.embedded and _version(features.version) < OLDEST_SERVER and features.version,
    }
    return [_finding(check, [said]) for check, said in wrong.items() if said]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _about_indexes(indexes: Sequence[IndexState]) -> Sequence[Finding]:
    by_state = {"missing": INDEX_MISSING, "different": INDEX_DIFFERENT, "foreign": INDEX_FOREIGN}
    named = {
        check: [f"{index.collection}.{index.name}" for index in indexes if index.state == state]
        for state, check in by_state.items()
    }
    return [_finding(check, names) for check, names in named.items() if names]


def _about_queues(queues: Sequence[str]) -> Sequence[Finding]:
    return [_finding(UNKNOWN_QUEUE, queues)] if queues else []


async def _about_workers(inspector: Inspector, found: Sequence[Specimen], now: datetime) -> Sequence[Finding]:
    unfinished = [one.id for one in found if one.known_status in {Status.PENDING, Status.PROCESSING}]
    if not unfinished or await inspector.has_workers(since=now - timedelta(seconds=WORKER_SILENCE_SECONDS)):
        return []
    return [_finding(NO_WORKERS, unfinished)]


async def _about_counts(inspector: Inspector) -> Sequence[Finding]:
    for _ in range(COUNTS):
        counts = await inspector.counts()
        if counts.by_status == counts.total:
            return []
        await asyncio.sleep(AGAIN_SECONDS)
    return [_finding(COUNTS_DISAGREE, [f"{counts.by_status} by state, {counts.total} in all"])]


def _finding(check: Check, about: Sequence[str]) -> Finding:
    return Finding(check, len(about), about[:MAX_EXAMPLES])


def as_text(examination: Examination, mended: Mapping[str, int]) -> str:
    """The report for people."""
    features = examination.server.features
    lines = [f"{features.name} {features.version}, {examination.documents} documents examined"]
    lines += [f"mended: {name} ({count})" for name, count in mended.items()]
    for finding in examination.findings:
        more = " ..." if finding.count > len(finding.examples) else ""
        lines += ["", f"{finding.check.name}: {finding.count} ({', '.join(finding.examples)}{more})"]
        lines += [f"  {finding.check.means}", f"  -> {finding.check.remedy}"]
    return "\n".join([*lines, "", "healthy" if examination.healthy else _verdict(examination)])


def _verdict(examination: Examination) -> str:
    fixable = sum(finding.check.fixable for finding in examination.findings)
    return f"{len(examination.findings)} findings" + (f", of which --fix mends {fixable}" if fixable else "")
