"""What admission needs to know: how much waits, and the meters that all processes share.

A meter is a document of the collection `limits`: `{_id: name, at: int64}`. It is written by one node only: should
an election take a step of it back, a second's worth of jobs more is accepted, and nothing else happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bson import Int64
from pymongo.errors import DuplicateKeyError

from jobqueue.job import Status
from jobqueue.mongo import indexes
from jobqueue.mongo.documents import whole
from jobqueue.mongo.moves import Filter
from jobqueue.mongo.store import Store

ONE_BY_ONE = 20
"""So many queues are counted one after the other, each up to the limit. For more, all that waits is counted once; how
much that is has a limit of its own."""


class Limits:
    """The verbs of admission."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def count_waiting(self, limit: int) -> int:
        """How many jobs are pending or scheduled, counted up to `limit`."""
        return await self._count_up_to(limit, None)

    async def count_waiting_in(self, queues: Sequence[str], limit: int) -> Sequence[int]:
        """The same for each of these queues, in their order."""
        if len(queues) <= ONE_BY_ONE:
            return [await self._count_up_to(limit, queue) for queue in queues]
        waiting = {row["_id"]: int(row["count"]) for row in await self._count_each() if isinstance(row["_id"], str)}
        return [min(limit, waiting.get(queue, 0)) for queue in queues]

    async def read_meter(self, name: str) -> int:
        """Where a meter stands."""
        # read: a meter
        found = await self._store.calls.run("read a limit", lambda: self._store.limits.find_one({"_id": name}))
        return whole(found.get("at"), 0) if found is not None else 0

    async def move_meter(self, name: str, *, seen: int, to: int) -> bool:
        """Move a meter, only while it stands where it was seen."""
        return await self._store.calls.run("move a limit", lambda: self._move(name, seen, to))

    async def _move(self, name: str, seen: int, to: int) -> bool:
        # limits: only while it stands where it was seen; at first it is not there
        query: Filter = {"_id": name, "at": seen}
        try:
            result = await self._store.limits.update_one(query, {"$set": {"at": Int64(to)}}, upsert=seen == 0)
        except DuplicateKeyError:
            return False
        return result.matched_count == 1 or result.upserted_id is not None

    async def _count_up_to(self, limit: int, queue: str | None) -> int:
        pending = await self._count(Status.PENDING, queue, limit=limit)
        if pending >= limit:
            return limit
        return pending + await self._count(Status.SCHEDULED, queue, limit=limit - pending)

    async def _count_each(self) -> Sequence[Mapping[str, Any]]:
        # read: how many jobs wait in each queue. Which are meant is not said: one build of the embedded server would
        # compare each job with each of the names
        waiting: Filter = {"status": {"$in": [Status.PENDING.value, Status.SCHEDULED.value]}}
        pipeline: Sequence[Filter] = [{"$match": waiting}, {"$group": {"_id": "$queue", "count": {"$sum": 1}}}]
        return await self._store.aggregated("count what waits", indexes.STATUS_NEWEST, pipeline)

    async def _count(self, status: Status, queue: str | None, *, limit: int) -> int:
        # read: count of one state, from an index; of scheduled jobs in one queue, from their documents
        query: Filter = {"status": status.value} if queue is None else {"queue": queue, "status": status.value}
        index = indexes.CLAIM if queue is not None and status is Status.PENDING else indexes.STATUS_NEWEST
        return await self._store.hinted(
            "count what waits",
            index,
            lambda hint: self._store.jobs.count_documents(query, limit=limit, **hint),
        )
