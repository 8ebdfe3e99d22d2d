"""Every move as MongoDB sees it: a filter that is its guard, and an update. Pure dicts, no driver.

`job.MOVES` says from where to where; here is how, once for each. `_id` is first in every filter, beside it only
plain clauses, so that every server finds the document by its id. What the owner of an attempt writes also
leaves `lastOutcome` behind, by which a repeated write after a lost answer is recognised; what others do to a
job (rescue, cancel, redrive) must not touch it, or a zombie could take their write for its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from jobqueue.job import FINISHED, MAX_ERRORS, AttemptError, Claim, Job, JobId, JsonValue, Lease, LeaseId, Status
from jobqueue.mongo.documents import error_document

Filter = dict[str, Any]
Update = dict[str, Any]
Pipeline = list[dict[str, Any]]

TICK = timedelta(milliseconds=1)
"""What BSON can tell apart. "Until now" is written `$lt: now + TICK`: one server loses ties with `$lte`."""

FLAG = "cancelRequestedAt"
ASKED_TO_STOP: Filter = {FLAG: {"$exists": True}}
NOT_ASKED_TO_STOP: Filter = {FLAG: {"$exists": False}}
REDRIVABLE = [Status.FAILED.value, Status.CANCELLED.value]
CANCELLABLE = [Status.SCHEDULED.value, Status.PENDING.value]
ENDED = sorted(status.value for status in FINISHED)


class Statement(NamedTuple):
    """One update of one document."""

    filter: Filter
    update: Update


class MergedStatement(NamedTuple):
    """One update of many documents."""

    filter: Filter
    update: Update | Pipeline


class Outcome(NamedTuple):
    """How an attempt ended: at most one of the statements can match. `kind` is what `lastOutcome` will say."""

    claim: Claim
    kind: str
    statements: Sequence[Statement]
    result: JsonValue | None = None


class Completion(NamedTuple):
    """The outcome of a task that is done: an `Outcome` whose statement is made only when somebody asks for it, since
    nearly all completions share one."""

    claim: Claim
    result: JsonValue | None
    at: datetime
    kind: str = "complete"

    @property
    def statements(self) -> Sequence[Statement]:
        """processing -> completed, only by the lease that claimed it."""
        update = _outcome(self.claim, self.kind, Status.COMPLETED, at=self.at, finishedAt=self.at)
        if self.result is not None:
            update["$set"]["result"] = self.result
        return [Statement(owned(self.claim), update)]


def owned(claim: Claim) -> Filter:
    """The guard of everything that an attempt writes."""
    return {"_id": claim.job_id, "lease.id": claim.lease_id}


def claim(lease: Lease, *, at: datetime) -> Update:
    """pending -> processing: the attempt counts from here on, whether or not anybody hears the answer."""
    return {
        "$set": {
            "status": Status.PROCESSING.value,
            "lease": {"id": lease.id, "workerId": lease.worker_id, "expiresAt": lease.expires_at},
            "startedAt": at,
            "updatedAt": at,
        },
        "$inc": {"retryCount": 1},
    }


def claimed(job: Job, lease: Lease, *, at: datetime) -> Job:
    """What `claim` makes of a job that was never claimed."""
    changes = {"status": Status.PROCESSING, "lease": lease, "started_at": at, "updated_at": at, "retry_count": 1}
    return job.model_copy(update=changes)


def renew(expires_at: datetime) -> Update:
    """stays processing; never shortens a lease, and leaves `updatedAt` alone."""
    return {"$max": {"lease.expiresAt": expires_at}}


def complete(claim: Claim, result: JsonValue | None, *, at: datetime) -> Completion:
    """processing -> completed, only by the lease that claimed it."""
    return Completion(claim, result, at)


def fail(claim: Claim, error: AttemptError, *, at: datetime) -> Outcome:
    """processing -> failed, only by the lease that claimed it."""
    update = _outcome(claim, "fail", Status.FAILED, at=at, finishedAt=at) | push_error(error)
    return Outcome(claim, "fail", [Statement(owned(claim), update)])


def abandon(claim: Claim, *, at: datetime) -> Outcome:
    """processing -> cancelled, only by the lease that claimed it."""
    update = _outcome(claim, "abandon", Status.CANCELLED, at=at, finishedAt=at)
    return Outcome(claim, "abandon", [Statement(owned(claim), update)])


def quarantine(claim: Claim, error: AttemptError, *, at: datetime) -> Outcome:
    """processing -> failed, only by the lease that claimed it; what stood in `errors` may be what was wrong."""
    update = _outcome(claim, "quarantine", Status.FAILED, at=at, finishedAt=at, errors=[error_document(error)])
    return Outcome(claim, "quarantine", [Statement(owned(claim), update)])


def merged(outcomes: Sequence[Outcome | Completion]) -> MergedStatement:
    """Outcomes of one lease and one kind, all with a result or all without, as one statement: they differ by what
    they returned and by some milliseconds in their times, of which the youngest is used for all."""
    last = outcomes[-1]
    ids = [outcome.claim.job_id for outcome in outcomes]
    update = last.statements[0].update
    guard = {"_id": {"$in": ids}, "lease.id": last.claim.lease_id}
    if last.result is None:
        return MergedStatement(guard, update)
    return MergedStatement(guard, _each_with_its_own(update, ids, [outcome.result for outcome in outcomes]))


def _each_with_its_own(update: Update, ids: Sequence[JobId], results: Sequence[JsonValue]) -> Pipeline:
    # The result of a job stands in one list where its id stands in the other. Every value is a literal: as such, in a
    # pipeline, what begins with a dollar would be a field or an operator, and an object be merged with what is there.
    own = {"$arrayElemAt": [{"$literal": results}, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    fields = {name: {"$literal": value} for name, value in update["$set"].items()}
    return [{"$set": fields | {"result": own}}, {"$unset": list(update["$unset"])}]


def retry(claim: Claim, error: AttemptError, *, run_at: datetime, at: datetime) -> Outcome:
    """processing -> scheduled, or cancelled when that was asked; only by the lease that claimed it."""
    back = _outcome(claim, "retry", Status.SCHEDULED, at=at, runAt=run_at) | push_error(error)
    stop = _outcome(claim, "retry", Status.CANCELLED, at=at, finishedAt=at) | push_error(error)
    return _unless_asked_to_stop(claim, "retry", back, stop)


def snooze(claim: Claim, *, until: datetime, at: datetime) -> Outcome:
    """processing -> scheduled, or cancelled when that was asked; the attempt does not count."""
    back = _outcome(claim, "snooze", Status.SCHEDULED, at=at, runAt=until) | give_back()
    stop = _outcome(claim, "snooze", Status.CANCELLED, at=at, finishedAt=at) | give_back()
    return _unless_asked_to_stop(claim, "snooze", back, stop)


def release(claim: Claim, *, at: datetime) -> Outcome:
    """processing -> pending, or cancelled when that was asked; the attempt does not count."""
    back = _outcome(claim, "release", Status.PENDING, at=at) | give_back()
    stop = _outcome(claim, "release", Status.CANCELLED, at=at, finishedAt=at) | give_back()
    return _unless_asked_to_stop(claim, "release", back, stop)


def release_orphan(claim: Claim, *, at: datetime) -> Sequence[Statement]:
    """processing -> pending (or cancelled) for an attempt that never began: nobody owns it, so no `lastOutcome`."""
    back = without_lease(Status.PENDING, at=at) | give_back()
    stop = without_lease(Status.CANCELLED, at=at, finishedAt=at) | give_back()
    return [Statement(owned(claim) | NOT_ASKED_TO_STOP, back), Statement(owned(claim) | ASKED_TO_STOP, stop)]


def rescue(claim: Claim, target: Status, error: AttemptError, *, cutoff: datetime, at: datetime) -> Statement:
    """processing -> pending, failed or cancelled, only while the seen lease is there *and* expired: a renewal
    keeps the lease id, so the expiry must be in the write itself."""
    guard = owned(claim) | {"lease.expiresAt": {"$lt": cutoff}}
    guard |= ASKED_TO_STOP if target is Status.CANCELLED else NOT_ASKED_TO_STOP
    fields = {"finishedAt": at} if target in FINISHED else {}
    return Statement(guard, without_lease(target, at=at, **fields) | push_error(error))


def promote(*, at: datetime) -> Update:
    """scheduled -> pending."""
    return {"$set": {"status": Status.PENDING.value, "updatedAt": at}}


def cancel(*, at: datetime) -> Update:
    """scheduled, pending -> cancelled."""
    return {"$set": {"status": Status.CANCELLED.value, "finishedAt": at, "updatedAt": at}}


def ask_to_stop(*, at: datetime) -> Update:
    """stays processing; its worker, or whoever takes the job back, writes cancelled."""
    return {"$set": {FLAG: at, "updatedAt": at}}


def redrive(*, at: datetime) -> Update:
    """failed, cancelled -> pending, as if new. `finishedAt` must go, or the pruner would delete a waiting job."""
    gone = ("finishedAt", "startedAt", "result", "progress", "lease", "lastOutcome", FLAG)
    return {
        "$set": {"status": Status.PENDING.value, "retryCount": 0, "runAt": at, "updatedAt": at},
        "$inc": {"redrives": 1},
        "$unset": dict.fromkeys(gone, ""),
    }


def quarantine_waiting(error: AttemptError, *, at: datetime) -> Update:
    """pending -> failed, for a document that a claim cannot even be written to."""
    fields = {"status": Status.FAILED.value, "finishedAt": at, "updatedAt": at, "errors": [error_document(error)]}
    return {"$set": fields}


def push_error(error: AttemptError) -> Update:
    """Append to `errors`, of which the newest are kept."""
    return {"$push": {"errors": {"$each": [error_document(error)], "$slice": -MAX_ERRORS}}}


def without_history(update: Update) -> Update:
    """The same update for a document whose `errors` is no list: it begins a new one."""
    changed = {operator: fields for operator, fields in update.items() if operator != "$push"}
    changed["$set"] = changed["$set"] | {"errors": update["$push"]["errors"]["$each"]}
    return changed


def give_back() -> Update:
    """The attempt does not count."""
    return {"$inc": {"retryCount": -1}}


def without_lease(status: Status, *, at: datetime, **fields: Any) -> Update:
    """Leave `processing`."""
    return {"$set": {"status": status.value, "updatedAt": at, **fields}, "$unset": {"lease": ""}}


def _outcome(claim: Claim, kind: str, status: Status, *, at: datetime, **fields: Any) -> Update:
    return without_lease(status, at=at, lastOutcome=last_outcome(claim.lease_id, kind), **fields)


def last_outcome(lease_id: LeaseId, kind: str) -> dict[str, str]:
    """The mark by which the owner recognises its own outcome."""
    return {"leaseId": lease_id, "kind": kind}


def _unless_asked_to_stop(claim: Claim, kind: str, back: Update, stop: Update) -> Outcome:
    # Two statements, the flag in each guard: a cancel that comes at any moment is either seen here or refused.
    return Outcome(
        claim, kind, [Statement(owned(claim) | NOT_ASKED_TO_STOP, back), Statement(owned(claim) | ASKED_TO_STOP, stop)]
    )
