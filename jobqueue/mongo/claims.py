"""Which jobs could be claimed, and claiming them.

The claim of one job is `find_one_and_update({_id, status: "pending"}, {$set: ..., $inc: {retryCount: 1}})`. For many
at once (on the embedded server for one too, where `findAndModify` is slow) the same update is one `update_many` under
one fresh lease id, and a read by that lease id tells what was won. What an attempt needs to know (its number, the
payload, the flags) comes from the document after the write, never from the candidate: in between the job may have been
run by somebody else. Jobs that were stored a moment ago (`fresh.py`) are not read: there the filter says that they
still are what they were, and they are known to be won when as many matched.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import structlog
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from jobqueue.job import Candidate, Claim, Job, JobId, Lease, LeaseId, Status
from jobqueue.mongo import indexes, moves
from jobqueue.mongo.adoption import text_id
from jobqueue.mongo.calls import CLIENT_SECONDS, REFUSED_ITEM_CODES, unavailable
from jobqueue.mongo.documents import CANDIDATE_FIELDS, Unreadable, read_candidate, read_document, unreadable_error
from jobqueue.mongo.fresh import FreshJobs
from jobqueue.mongo.store import MAX_IDS, Store, chunks
from jobqueue.repository import Claimed, Window

log = structlog.get_logger(__name__)

ClaimMode = Literal["auto", "single", "batch"]
WHAT = "claim"

MAX_QUEUES = 200
"""MongoDB merges so many sorted scans of an index; beyond that it would sort in memory."""

CANDIDATE_ORDER = [("priority", -1), ("runAt", 1), ("_id", 1)]
NO_CLAUSES: Mapping[str, Any] = {}


class Claims:
    """The verbs of dispatch."""

    def __init__(self, store: Store, fresh: FreshJobs, *, mode: ClaimMode) -> None:
        self._store = store
        self._fresh = fresh
        self._mode = mode
        self.suspects: dict[str, Any] = {}
        """Ids of pending documents whose index entry cannot be read, by their text; the adoption deals with them."""

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        """Pending jobs in claim order, from the head or from `after` on."""
        windows = [await self._window(names, after=after, limit=limit) for names in chunks(queues, MAX_QUEUES)]
        return _merge(windows, limit=limit)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> Claimed:
        """pending -> processing for those that still are pending."""
        try:
            if self._one_by_one(job_ids):
                return _sort_out(await self._claim_singly(job_ids, lease, at=at), lease.id)
            fresh = self._fresh.take(job_ids)
            if fresh and not self._store.features.sharded:
                return await self._claim_fresh(fresh, lease, at=at)
            for ids in chunks(job_ids, MAX_IDS):
                await self._claim_batch(ids, lease, at=at)
        except PyMongoError as error:
            raise unavailable(WHAT, error) from error
        return await self.claimed(job_ids, lease.id)

    async def claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Claimed:
        """What this lease id won."""
        documents = [
            document for ids in chunks(job_ids, MAX_IDS) for document in await self._read_claimed(ids, lease_id)
        ]
        return _sort_out(documents, lease_id)

    def _one_by_one(self, job_ids: Sequence[JobId]) -> bool:
        # On the embedded server findAndModify costs milliseconds per thousand documents.
        cheap = not self._store.features.embedded
        return self._mode == "single" or (self._mode == "auto" and len(job_ids) == 1 and cheap)

    async def _window(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        if after is None:
            return self._as_window(await self._find({}, queues, limit=limit), limit)
        same = {"priority": -after.rank, "runAt": {"$gte": after.run_at}}
        found = await self._find(same, queues, limit=limit)
        if len(found) < limit:
            lower = {"priority": {"$lt": -after.rank}}
            found = [*found, *await self._find(lower, queues, limit=limit - len(found))]
        return self._as_window(found, limit)

    def _as_window(self, found: Sequence[Mapping[str, Any]], limit: int) -> Window:
        candidates = []
        for document in found:
            try:
                candidates.append(read_candidate(document))
            except Unreadable:
                self.suspects[text_id(document["_id"])] = document["_id"]
        # Unreadable ones fill the window too: whether anything stands behind them is not known.
        return Window(sorted(candidates), complete=len(found) < limit)

    async def _find(
        self, beyond: Mapping[str, Any], queues: Sequence[str], *, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        # read: pending jobs of these queues in claim order, from the index alone
        query = {"queue": {"$in": list(queues)}, "status": Status.PENDING.value, **beyond}
        return await self._store.hinted(
            "look for work",
            indexes.CLAIM,
            lambda hint: self._store.jobs.find(
                query, CANDIDATE_FIELDS, sort=CANDIDATE_ORDER, limit=limit, batch_size=limit, **hint
            ).to_list(None),
        )

    async def _claim_singly(
        self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime
    ) -> Sequence[Mapping[str, Any]]:
        won = []
        for job_id in job_ids:
            try:
                found = await self._find_one_and_update(job_id, lease, at=at)
            except OperationFailure as error:
                await self._quarantine_refused(job_id, error, at=at)
            else:
                won += [found] if found is not None else []
        return won

    async def _claim_batch(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> None:
        # In a sharded cluster a multi-update may apply twice or not at all while data moves.
        if self._store.features.sharded:
            return await self._claim_each(job_ids, lease, at=at)
        try:
            await self._update_many(job_ids, lease, at=at)
        except OperationFailure as error:
            if error.code not in REFUSED_ITEM_CODES:
                raise
            # One document that cannot be updated stopped the statement half-way: the others, each by itself.
            await self._claim_each(job_ids, lease, at=at)

    async def _claim_fresh(self, jobs: Sequence[Job], lease: Lease, *, at: datetime) -> Claimed:
        if await self._update_fresh(jobs, lease, at=at) == len(jobs):
            return Claimed([moves.claimed(job, lease, at=at) for job in jobs])
        return await self.claimed([job.id for job in jobs], lease.id)

    async def _claim_each(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> None:
        try:
            await self._update_each(job_ids, lease, at=at)
        except BulkWriteError as error:
            if error.details.get("writeConcernErrors"):
                raise
            for write_error in error.details["writeErrors"]:
                refused = OperationFailure(write_error.get("errmsg", ""), write_error.get("code"))
                await self._quarantine_refused(job_ids[write_error["index"]], refused, at=at)

    async def _quarantine_refused(self, job_id: JobId, error: OperationFailure, *, at: datetime) -> None:
        if error.code not in REFUSED_ITEM_CODES:
            raise error
        log.warning("job cannot be claimed", job_id=job_id, code=error.code)
        await self._quarantine(job_id, f"cannot be claimed: {error}", at=at)

    async def _find_one_and_update(self, job_id: JobId, lease: Lease, *, at: datetime) -> Mapping[str, Any] | None:
        # claim: pending -> processing, only while it is pending
        query, update = {"_id": job_id, "status": Status.PENDING.value}, moves.claim(lease, at=at)
        return await self._store.calls.attempt(
            lambda: self._store.jobs.find_one_and_update(
                query, update, return_document=ReturnDocument.AFTER, **self._store.by_id
            ),
            seconds=CLIENT_SECONDS,
        )

    async def _update_many(
        self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime, further: Mapping[str, Any] = NO_CLAUSES
    ) -> int:
        # claim, many: pending -> processing, only those that are pending, and for which the `further` clauses hold
        query = {"_id": {"$in": list(job_ids)}, "status": Status.PENDING.value, **further}
        update = moves.claim(lease, at=at)
        result = await self._store.calls.attempt(
            lambda: self._store.jobs.update_many(query, update, **self._store.by_id), seconds=CLIENT_SECONDS
        )
        return int(result.matched_count)

    async def _update_fresh(self, jobs: Sequence[Job], lease: Lease, *, at: datetime) -> int:
        # the same for jobs that still are as they were stored, and were never claimed
        unchanged = {"retryCount": 0, "insertId": {"$in": [job.insert_id for job in jobs]}}
        return await self._update_many([job.id for job in jobs], lease, at=at, further=unchanged)

    async def _update_each(self, job_ids: Sequence[JobId], lease: Lease, *, at: datetime) -> None:
        # claim, many: pending -> processing, only those that are pending, one statement for each
        update = moves.claim(lease, at=at)
        writes = [
            UpdateOne({"_id": job_id, "status": Status.PENDING.value}, update, **self._store.by_id)
            for job_id in job_ids
        ]
        await self._store.calls.attempt(
            lambda: self._store.jobs.bulk_write(writes, ordered=False), seconds=CLIENT_SECONDS
        )

    async def _quarantine(self, job_id: JobId, reason: str, *, at: datetime) -> None:
        # fail: pending -> failed, for a document that refuses to be claimed, only while it is pending
        query = {"_id": job_id, "status": Status.PENDING.value}
        update = moves.quarantine_waiting(unreadable_error(reason, at=at), at=at)
        await self._store.calls.attempt(
            lambda: self._store.jobs.update_one(query, update, **self._store.by_id), seconds=CLIENT_SECONDS
        )

    async def _read_claimed(self, job_ids: Sequence[JobId], lease_id: LeaseId) -> Sequence[Mapping[str, Any]]:
        # read: what this lease owns among these ids
        query = {"_id": {"$in": list(job_ids)}, "lease.id": lease_id}
        at_once = len(job_ids) + 1  # an answer that is not full is known to be the last
        return await self._store.calls.run(
            "read what was claimed",
            lambda: self._store.jobs.find(query, batch_size=at_once, **self._store.by_id).to_list(None),
        )


def _sort_out(documents: Sequence[Mapping[str, Any]], lease_id: LeaseId) -> Claimed:
    jobs: list[Job] = []
    unreadable: list[tuple[Claim, str]] = []
    for document in documents:
        try:
            jobs.append(read_document(document))
        except Unreadable as error:
            unreadable.append((Claim(document["_id"], lease_id), str(error)))
    return Claimed(jobs, unreadable)


def _merge(windows: Sequence[Window], *, limit: int) -> Window:
    merged = list(heapq.merge(*(window.candidates for window in windows)))
    for window in windows:
        if not window.complete:
            # Beyond its last one this window has more that would come in between.
            last = window.candidates[-1] if window.candidates else None
            merged = [candidate for candidate in merged if last is not None and candidate <= last]
    complete = all(window.complete for window in windows) and len(merged) <= limit
    return Window(merged[:limit], complete)
