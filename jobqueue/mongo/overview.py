"""Looking at many jobs at once: how many stand where, some by their ids, which of them have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo.read_concern import ReadConcern

from jobqueue.clock import Clock
from jobqueue.job import EPOCH, Job, Status
from jobqueue.mongo import indexes
from jobqueue.mongo.cached import Cached
from jobqueue.mongo.calls import settled
from jobqueue.mongo.counters import Counters
from jobqueue.mongo.documents import plain, read_or_salvage
from jobqueue.mongo.moves import Filter
from jobqueue.mongo.store import MAX_IDS, Hint, Store, chunks
from jobqueue.mongo.store import Collection as MongoCollection
from jobqueue.repository import Revision, Totals

TOTALS_TRIES = 3
"""How often the jobs are counted again because some were deleted meanwhile."""

HAS_KEY: Filter = {"idempotencyKey": {"$gte": ""}}
"""Keys are strings, and every string is in this range."""


class Overview:
    """The verbs that look at many jobs, but are no list."""

    def __init__(self, store: Store, counters: Counters, clock: Clock) -> None:
        self._store = store
        self._counters = counters
        self._totals = Cached(self._find_totals, clock)

    async def count_by_status(self) -> Mapping[Status, int]:
        """How many jobs stand in each state. Where the server has snapshot reads the numbers are those of one
        moment; elsewhere a job that moves meanwhile may be counted twice or not at all."""
        counts: Counter[Status] = Counter(dict.fromkeys(Status, 0))
        for row in await self._store.hinted("count the jobs", indexes.STATUS_NEWEST, self._group):
            counts[_status(row["_id"])] += int(row["count"])
        return counts

    async def totals(self) -> Totals:
        """The whole database in numbers."""
        return await self._totals.get()

    async def get_many(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """These jobs by their ids; those that are not there are left out."""
        found = await self._find("read the jobs", job_ids, None)
        return {document["_id"]: read_or_salvage(document) for document in found}

    async def revisions(self, job_ids: Collection[str]) -> Mapping[str, Revision]:
        """Where these jobs stand, and when each was last moved; those that are gone are left out."""
        found = await self._find("see which jobs changed", job_ids, {"status": 1, "updatedAt": 1})
        return {document["_id"]: _revision(document) for document in found}

    async def _find_totals(self) -> Totals:
        await self._counters.save()
        before = await self._counters.read()
        for _ in range(TOTALS_TRIES):
            present = await self.count_by_status()
            after = await self._counters.read()
            if before.is_settled(after):
                break
            # Jobs went from the collection into a counter while the two were read.
            before = after
        keys = await self._store.hinted("count the idempotency keys", indexes.IDEMPOTENCY_KEY, self._count_keys)
        return Totals(present, after.removed, after.retried, keys)

    async def _count_keys(self, hint: Hint) -> int:
        # read: count of the jobs that have a key, from the index alone: for `$exists` MongoDB would fetch each of them
        return await self._store.jobs.count_documents(HAS_KEY, **hint)

    async def _group(self, hint: Hint) -> Sequence[Mapping[str, Any]]:
        # read: how many jobs in each state, from the index alone
        pipeline = [{"$group": {"_id": "$status", "count": {"$sum": 1}}}]
        cursor = await settled(self._counted().aggregate(pipeline, **hint))
        rows: Sequence[Mapping[str, Any]] = await cursor.to_list(None)
        return rows

    def _counted(self) -> MongoCollection:
        features = self._store.features
        if features.embedded or not (features.replica_set or features.sharded):
            return self._store.jobs
        return self._store.jobs.with_options(read_concern=ReadConcern("snapshot"))

    async def _find(
        self, what: str, job_ids: Collection[str], fields: Mapping[str, Any] | None
    ) -> Sequence[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for ids in chunks(list(job_ids), MAX_IDS):
            found += await self._find_chunk(what, ids, fields)
        return found

    async def _find_chunk(
        self, what: str, ids: Sequence[str], fields: Mapping[str, Any] | None
    ) -> Sequence[Mapping[str, Any]]:
        # read: jobs by their ids
        query = {"_id": {"$in": list(ids)}}
        return await self._store.calls.run(
            what, lambda: self._store.jobs.find(query, fields, **self._store.by_id).to_list(None)
        )


def _status(stored: Any) -> Status:
    """The state that a job with this in its document is shown in: as `read_or_salvage` shows it."""
    return read_or_salvage({"_id": "", "status": stored}).status


def _revision(document: Mapping[str, Any]) -> Revision:
    updated_at = plain(document.get("updatedAt"))
    return Revision(_status(document.get("status")), updated_at if isinstance(updated_at, datetime) else EPOCH)
