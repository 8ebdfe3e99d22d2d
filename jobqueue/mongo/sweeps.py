"""What is done to many jobs at once: promote, rescue, release of orphans, prune; redrive and delete of dead letters.

Each reads ids first, with a limit, and repeats in the write what it read: another process may have been faster,
and an owner may have renewed. No statement is unbounded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError

from jobqueue.job import FINISHED, LAST_INSTANT, AttemptError, Candidate, Claim, Job, JobId, LeaseId, Status
from jobqueue.mongo import indexes, moves
from jobqueue.mongo.calls import CLIENT_SECONDS, MAINTENANCE_SECONDS, unavailable
from jobqueue.mongo.counters import Counters
from jobqueue.mongo.documents import CANDIDATE_FIELDS, lease_id_in, plain, readable_candidates, whole
from jobqueue.mongo.job_logs import JobLogs
from jobqueue.mongo.moves import TICK, Filter, Statement, Update
from jobqueue.mongo.store import MAX_IDS, Store, chunks
from jobqueue.repository import Promoted, Rescued

log = structlog.get_logger(__name__)

LEASE_FIELDS = CANDIDATE_FIELDS | {"lease": 1, "retryCount": 1, "maxRetries": 1, moves.FLAG: 1}
LEASE_EXPIRED = "LeaseExpired"
WAIT_FOR_NOBODY = sorted(FINISHED - {Status.FAILED})
"""Finished, and nothing is to be done about it."""


class Sweeps:
    """The verbs that move or delete many jobs."""

    def __init__(self, store: Store, counters: Counters, logs: JobLogs) -> None:
        self._store = store
        self._counters = counters
        self._logs = logs

    async def promote(self, *, now: datetime, limit: int) -> Promoted:
        """scheduled -> pending for what is due. After a batch the next look is due at once: it tells what is left."""
        next_due = await self._next_due()
        if next_due is None or next_due > now:
            return Promoted([], next_due)
        due = await self._find_due(before=now + TICK, limit=limit)
        await self._promote([document["_id"] for document in due], now=now)
        return Promoted(readable_candidates(due), now)

    async def rescue(self, *, cutoff: datetime, at: datetime, limit: int, still: Callable[[], bool]) -> Rescued:
        """processing -> pending, failed or cancelled where the lease seen expired before `cutoff`.

        When another reaper is at the same jobs in the same moment, both may count them."""
        found = [document for document in await self._find_expired(cutoff, limit=limit) if _seen(document)]
        if not found or not still():
            return Rescued()
        # By the clock of whoever is primary now: it may be a new one, of which nobody has heard, with a clock behind.
        cutoff = min(cutoff, await self._store.server_time())
        targets = {document["_id"]: _target(document) for document in found}
        statements = [_rescue(document, targets[document["_id"]], cutoff=cutoff, at=at) for document in found]
        won = await self._write_and_see(statements)
        self._counters.count_retried(sum(targets[job_id] is Status.PENDING for job_id in won))
        requeued = [one for one in found if one["_id"] in won and targets[one["_id"]] is Status.PENDING]
        return Rescued(
            readable_candidates(requeued),
            failed=sum(targets[job_id] is Status.FAILED for job_id in won),
            cancelled=sum(targets[job_id] is Status.CANCELLED for job_id in won),
        )

    async def redrive(self, jobs: Sequence[Job], *, at: datetime) -> Sequence[Candidate]:
        """failed -> pending for these jobs; what another caller took first is left out."""
        for some in chunks(jobs, MAX_IDS):
            await self._redrive([job.id for job in some], at=at)
        pending = [one for some in chunks(jobs, MAX_IDS) for one in await self._find_redriven(some, at=at)]
        return readable_candidates(pending)

    async def release_orphans(
        self, lease_ids: Collection[LeaseId], known: Collection[Claim], *, at: datetime
    ) -> Sequence[Candidate]:
        """release what stands under these leases and is not known: nobody runs it. Returns what waits again."""
        known = frozenset(known)
        waiting: list[Mapping[str, Any]] = []
        for some in chunks(list(lease_ids), MAX_IDS):
            found = await self._find_owned(some)
            orphans = [claim for claim in map(_seen, found) if claim is not None and claim not in known]
            statements = [statement for claim in orphans for statement in moves.release_orphan(claim, at=at)]
            released = await self._write_and_see(statements)
            waiting += [one for one in found if one["_id"] in released and moves.FLAG not in one]
        return readable_candidates(waiting)

    async def prune(self, status: Status, *, finished_before: datetime, limit: int) -> int:
        """Delete finished jobs older than that."""
        found = await self._find_finished(status, before=finished_before, limit=min(limit, MAX_IDS))
        return await self._remove([document["_id"] for document in found], status, before=finished_before)

    async def prune_excess(self, *, keep: int, limit: int) -> int:
        """Delete the longest finished jobs beyond the newest `keep`; dead letters last: they wait for a person."""
        excess = min(sum([await self._count(status) for status in moves.ENDED]) - keep, limit, MAX_IDS)
        removed = 0
        for statuses in (WAIT_FOR_NOBODY, [Status.FAILED]):
            if excess > removed:
                removed += await self._remove_oldest(statuses, limit=excess - removed)
        return removed

    async def _remove_oldest(self, statuses: Sequence[Status], *, limit: int) -> int:
        found = [
            (plain(document["finishedAt"]), status, document["_id"])
            for status in statuses
            for document in await self._find_finished(status, before=None, limit=limit)
        ]
        oldest = sorted(found, key=lambda one: one[0])[:limit]
        removed = 0
        for status in statuses:
            ids = [job_id for _, its_status, job_id in oldest if its_status is status]
            removed += await self._remove(ids, status, before=oldest[-1][0] + TICK if oldest else None)
        return removed

    async def delete_failed(self, ids: Sequence[JobId]) -> int:
        """Delete those of these jobs that are failed."""
        return await self._remove(ids, Status.FAILED, seconds=CLIENT_SECONDS)

    async def _remove(
        self,
        ids: Sequence[Any],
        status: Status,
        *,
        before: datetime | None = None,
        seconds: float = MAINTENANCE_SECONDS,
    ) -> int:
        """Delete and count finished jobs, those that finished before then, and delete their logs."""
        if not ids:
            return 0

        async def delete(options: Mapping[str, Any]) -> int:
            return await self._delete(ids, status, before=before, options=options)

        async def attempt(call: Callable[[], Awaitable[int]]) -> int:
            return await self._store.calls.run("delete finished jobs", call, seconds=seconds)

        removed = await self._counters.remove(status, delete, attempt=attempt)
        # What was redriven meanwhile is still there, and keeps its log.
        left = await self._find_left(ids) if removed < len(ids) else set()
        await self._logs.forget([job_id for job_id in ids if isinstance(job_id, str) and job_id not in left])
        return removed

    async def _find_due(self, *, before: datetime, limit: int) -> Sequence[Mapping[str, Any]]:
        # read: scheduled jobs that are due, longest due first
        query = {"status": Status.SCHEDULED.value, "runAt": {"$lt": before}}
        return await self._find(
            "look for due jobs", indexes.DUE, query, CANDIDATE_FIELDS, [("runAt", 1)], min(limit, MAX_IDS)
        )

    async def _next_due(self) -> datetime | None:
        # read: when the first of the scheduled jobs is due; all that an idle look costs
        query = {"status": Status.SCHEDULED.value, "runAt": {"$lt": LAST_INSTANT}}
        found = await self._find("look for due jobs", indexes.DUE, query, {"_id": 0, "runAt": 1}, [("runAt", 1)], 1)
        due = plain(found[0]["runAt"]) if found else None
        return due if isinstance(due, datetime) else None

    async def _promote(self, ids: Sequence[Any], *, now: datetime) -> None:
        # promote: scheduled -> pending, only while scheduled and due
        query = {"_id": {"$in": list(ids)}, "status": Status.SCHEDULED.value, "runAt": {"$lt": now + TICK}}
        await self._store.calls.run(
            "promote due jobs",
            lambda: self._store.jobs.update_many(query, moves.promote(at=now), **self._store.by_id),
            seconds=MAINTENANCE_SECONDS,
        )

    async def _find_expired(self, cutoff: datetime, *, limit: int) -> Sequence[Mapping[str, Any]]:
        # read: attempts whose lease expired, longest expired first
        query = {"status": Status.PROCESSING.value, "lease.expiresAt": {"$lt": cutoff}}
        order = [("lease.expiresAt", 1)]
        return await self._find(
            "look for expired leases", indexes.LEASE, query, LEASE_FIELDS, order, min(limit, MAX_IDS)
        )

    async def _find_owned(self, lease_ids: Sequence[LeaseId]) -> Sequence[Mapping[str, Any]]:
        # read: what stands under these leases, among the jobs that are running anywhere
        query = {"status": Status.PROCESSING.value, "lease.id": {"$in": list(lease_ids)}}
        return await self._find("look for orphans", indexes.STATUS_NEWEST, query, LEASE_FIELDS, [("seq", -1)], 0)

    async def _find_finished(
        self, status: Status, *, before: datetime | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        # read: finished jobs of one state, longest finished first
        query: Filter = {"status": status.value}
        query |= {"finishedAt": {"$lt": before or LAST_INSTANT}}  # what was typed as text is none
        order = [("finishedAt", 1)]
        return await self._find(
            "look for old jobs", indexes.RETENTION, query, {"_id": 1, "finishedAt": 1}, order, limit
        )

    async def _redrive(self, ids: Sequence[JobId], *, at: datetime) -> None:
        # redrive, many: failed -> pending, each only while it is failed; one that refuses stays where it is
        update = moves.redrive(at=at)
        writes = [
            UpdateOne({"_id": job_id, "status": Status.FAILED.value}, update, **self._store.by_id) for job_id in ids
        ]
        try:
            await self._store.calls.attempt(
                lambda: self._store.jobs.bulk_write(writes, ordered=False), seconds=CLIENT_SECONDS
            )
        except BulkWriteError as error:
            if error.details.get("writeConcernErrors"):
                raise unavailable("redrive", error) from error
            log.warning("jobs refuse to be redriven", count=len(error.details["writeErrors"]))
        except PyMongoError as error:
            raise unavailable("redrive", error) from error

    async def _find_redriven(self, jobs: Sequence[Job], *, at: datetime) -> Sequence[Mapping[str, Any]]:
        # read: which of these are pending since this redrive
        query = {"_id": {"$in": [job.id for job in jobs]}, "status": Status.PENDING.value, "runAt": at}
        return await self._store.calls.run(
            "redrive", lambda: self._store.jobs.find(query, CANDIDATE_FIELDS, **self._store.by_id).to_list(None)
        )

    async def _count(self, status: str) -> int:
        # read: count of one state, from the index
        return await self._store.hinted(
            "count jobs",
            indexes.STATUS_NEWEST,
            lambda hint: self._store.jobs.count_documents({"status": status}, **hint),
            seconds=MAINTENANCE_SECONDS,
        )

    async def _delete(
        self, ids: Sequence[Any], status: Status, *, before: datetime | None, options: Mapping[str, Any]
    ) -> int:
        # prune, delete: only while still finished, and finished as long ago as it was: it may have been redriven
        query: Filter = {"_id": {"$in": list(ids)}, "status": status.value}
        query |= {"finishedAt": {"$lt": before}} if before is not None else {}
        result = await self._store.jobs.delete_many(query, **self._store.by_id, **options)
        return result.deleted_count

    async def _find_left(self, ids: Sequence[Any]) -> set[Any]:
        # read: which of these jobs are still there
        found = await self._store.calls.run(
            "prune old jobs",
            lambda: self._store.jobs.find({"_id": {"$in": list(ids)}}, {"_id": 1}, **self._store.by_id).to_list(None),
            seconds=MAINTENANCE_SECONDS,
        )
        return {document["_id"] for document in found if isinstance(document["_id"], str)}

    async def _find(
        self,
        what: str,
        index: str,
        query: Filter,
        fields: Mapping[str, Any],
        order: Sequence[tuple[str, int]],
        limit: int,
    ) -> Sequence[Mapping[str, Any]]:
        return await self._store.hinted(
            what,
            index,
            lambda hint: self._store.jobs.find(query, fields, sort=list(order), limit=limit, **hint).to_list(None),
            seconds=MAINTENANCE_SECONDS,
        )

    async def _write_and_see(self, statements: Sequence[Statement]) -> set[Any]:
        """Write updates that end leases; returns the ids of the jobs that lost the lease they had."""
        if not statements:
            return set()
        sent = {statement.filter["_id"]: statement.filter["lease.id"] for statement in statements}
        try:
            matched = await self._write(statements)
        except PyMongoError as error:
            raise unavailable("take jobs back", error) from error
        return set(sent) if matched == len(sent) else set(sent) - await self._still_leased(sent)

    async def _write(self, statements: Sequence[Statement]) -> int:
        try:
            return await self._bulk([(one.filter, one.update) for one in statements])
        except BulkWriteError as error:
            if error.details.get("writeConcernErrors"):
                raise
            # A document whose `errors` is no list (made by hand) gets a new one.
            refused = [statements[write_error["index"]] for write_error in error.details["writeErrors"]]
        await self._bulk([(one.filter, moves.without_history(one.update)) for one in refused])
        return -1

    async def _bulk(self, writes: Sequence[tuple[Filter, Update]]) -> int:
        # rescue, release: processing -> elsewhere, each only as long as the seen lease is there
        updates = [UpdateOne(query, update, **self._store.by_id) for query, update in writes]
        result = await self._store.calls.attempt(
            lambda: self._store.jobs.bulk_write(updates, ordered=False), seconds=MAINTENANCE_SECONDS
        )
        return result.matched_count

    async def _still_leased(self, sent: Mapping[Any, str]) -> set[Any]:
        # read: which of these jobs still have the lease that was seen
        query = {"_id": {"$in": list(sent)}}
        found = await self._store.calls.run(
            "see which jobs were taken back",
            lambda: self._store.jobs.find(query, {"lease.id": 1}, **self._store.by_id).to_list(None),
            seconds=MAINTENANCE_SECONDS,
        )
        return {one["_id"] for one in found if lease_id_in(one) == sent[one["_id"]]}


def _seen(document: Mapping[str, Any]) -> Claim | None:
    job_id, lease_id = document["_id"], lease_id_in(document)
    # Whoever claims has strings; an id of another kind is somebody's own, for the adoption.
    return Claim(JobId(job_id), lease_id) if isinstance(job_id, str) and lease_id is not None else None


def _target(document: Mapping[str, Any]) -> Status:
    if moves.FLAG in document:
        return Status.CANCELLED
    attempts, allowed = whole(document.get("retryCount"), 0), whole(document.get("maxRetries"), 0)
    return Status.PENDING if attempts < allowed else Status.FAILED


def _rescue(document: Mapping[str, Any], target: Status, *, cutoff: datetime, at: datetime) -> Statement:
    claim = Claim(document["_id"], document["lease"]["id"])
    worker_id = document["lease"].get("workerId")
    error = AttemptError(
        attempt=whole(document.get("retryCount"), 0),
        at=at,
        type=LEASE_EXPIRED,
        message="lease expired",
        worker_id=worker_id if isinstance(worker_id, str) else None,
    )
    return moves.rescue(claim, target, error, cutoff=cutoff, at=at)
