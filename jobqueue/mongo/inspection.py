"""What the doctor sees and mends, on MongoDB.

Looking: a bounded number of documents of each state, without their payloads. Mending: one document at a time,
conditional on its state and on what was wrong with it, so that a document that has moved on is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import PyMongoError, WriteError

from jobqueue.clock import ServerClock
from jobqueue.doctor import (
    NEVER_PRUNED,
    NO_LEASE,
    NO_TIME,
    STRAY_LEASE,
    UNKNOWN_STATUS,
    USED_UP,
    WAITING_AND_FINISHED,
    Counts,
    IndexState,
    ServerState,
    Specimen,
)
from jobqueue.job import DEFAULT_MAX_RETRIES, FINISHED, AttemptError, Job, Status
from jobqueue.mongo import indexes, moves
from jobqueue.mongo.calls import MAINTENANCE_SECONDS, unavailable
from jobqueue.mongo.documents import Unreadable, lease_id_in, plain, read_document, unreadable_error, whole
from jobqueue.mongo.indexes import Index
from jobqueue.mongo.moves import Filter, Update
from jobqueue.mongo.store import BY_ID, Collection, Store

WHAT = "examine the database"
MEND = "mend the database"
WITHOUT_CONTENT = {"payload": 0, "result": 0}
MAX_QUEUES = 1_000


class MongoInspector:
    """`Inspector` on a database that is in use."""

    def __init__(self, store: Store, *, clock: ServerClock) -> None:
        self._store = store
        self._clock = clock

    async def server(self) -> ServerState:
        """What the server is, and its clock."""
        await self._store.find_out()
        started = self._clock.monotonic()
        hello = await self._store.calls.run(WHAT, lambda: self._store.client.admin.command("hello"))
        half = timedelta(seconds=(self._clock.monotonic() - started) / 2)
        offset = plain(hello["localTime"]) + half - self._clock.local_now()
        self._clock.correct(offset)
        return ServerState(self._store.features, self._store.client.options.retry_writes, offset, self._clock.now())

    async def indexes(self) -> Sequence[IndexState]:
        """Missing, different and foreign ones."""
        wanted = [
            (self._store.jobs, indexes.job_indexes(sparse=self._store.sparse)),
            (self._store.workers, indexes.WORKER_INDEXES),
            (self._store.job_logs, indexes.LOG_INDEXES),
        ]
        return [wrong for collection, ours in wanted for wrong in await self._wrong_indexes(collection, ours)]

    async def specimens(self, *, limit: int) -> Sequence[Specimen]:
        """The newest of each state, those of no state, and those that have no `seq`."""
        queries: list[Filter] = [{"status": status.value} for status in Status]
        queries.append(await self._of_strange_status())
        # By id: a status that is a list is found by each of its entries.
        found = {
            repr(document["_id"]): _specimen(document)
            for query in queries
            for document in await self._find(query, limit=limit)
        }
        by_hand = [_specimen(document) for document in await self._find({"seq": None}, limit=limit)]
        return [*(one for one in found.values() if one.has_seq), *by_hand]

    async def counts(self) -> Counts:
        """By state and all together. Costs what it counts."""
        by_status = await self._group([{"$group": {"_id": "$status", "count": {"$sum": 1}}}], indexes.STATUS_NEWEST)
        # read: what the collection says of itself
        total = await self._store.calls.run(
            WHAT, self._store.jobs.estimated_document_count, seconds=MAINTENANCE_SECONDS
        )
        return Counts(sum(int(row["count"]) for row in by_status), int(total))

    async def unknown_queues(self) -> Sequence[str]:
        """Queues of waiting jobs that have no document in `signals`."""
        waiting = {"status": {"$in": [Status.PENDING.value, Status.SCHEDULED.value]}}
        pipeline: Sequence[Mapping[str, Any]] = [
            {"$match": waiting},
            {"$group": {"_id": "$queue"}},
            {"$limit": MAX_QUEUES},
        ]
        rows = await self._group(pipeline, indexes.STATUS_NEWEST)
        known = await self._store.calls.run(WHAT, lambda: self._store.signals.find({}, {"_id": 1}).to_list(None))
        return sorted({row["_id"] for row in rows if isinstance(row["_id"], str)} - {one["_id"] for one in known})

    async def has_workers(self, *, since: datetime) -> bool:
        """Whether one showed itself since then."""
        # read: any recent sign of life
        query = {"heartbeatAt": {"$gte": since}}
        return await self._store.calls.run(WHAT, lambda: self._store.workers.find_one(query, {"_id": 1})) is not None

    async def repair_indexes(self, wrong: Sequence[IndexState]) -> None:
        """Drop what is in the way, create ours."""
        for index in wrong:
            if index.state == "different":
                await self._drop(self._store.database[index.collection], index.name)
        await indexes.ensure_indexes(self._store)

    async def introduce(self, queues: Sequence[str], *, at: datetime) -> None:
        """Make these queues known."""
        for queue in queues:
            await self._touch(queue, at=at)

    async def mend(self, check: str, specimen: Specimen, *, at: datetime) -> bool:
        """Repair one document, while it is in the state in which it was seen and has what was wrong with it."""
        query, update = TREATMENTS[check](specimen, at)
        query = {"_id": specimen.raw_id, "status": {"$eq": specimen.status}} | query
        try:
            result = await self._store.calls.attempt(
                lambda: self._store.jobs.update_one(query, update, **self._store.by_id), seconds=MAINTENANCE_SECONDS
            )
        except WriteError:
            return False  # its `errors` are no list: it is also found to be unreadable
        except PyMongoError as error:
            raise unavailable(MEND, error) from error
        return result.modified_count == 1

    async def _wrong_indexes(self, collection: Collection, wanted: Sequence[Index]) -> Sequence[IndexState]:
        found = await self._store.calls.run(WHAT, collection.index_information)
        return _compare(collection.name, wanted, found)

    async def _of_strange_status(self) -> Filter:
        # read: every value of status; one step for each of them in the index
        values = await self._store.calls.run(
            WHAT, lambda: self._store.jobs.distinct("status"), seconds=MAINTENANCE_SECONDS
        )
        # It may be anything, also what cannot be hashed and what looks like an operator. Of a list the server tells the
        # entries, so an empty one is asked for by itself.
        strange = [None, [], *(value for value in values if value not in list(Status))]
        return {"$or": [{"status": {"$eq": value}} for value in strange]}

    async def _find(self, query: Filter, *, limit: int) -> Sequence[Mapping[str, Any]]:
        # read: the newest documents, without what the clients put into them
        return await self._store.calls.run(
            WHAT,
            lambda: self._store.jobs.find(query, WITHOUT_CONTENT, sort=[("seq", -1)], limit=limit).to_list(None),
            seconds=MAINTENANCE_SECONDS,
        )

    async def _group(self, pipeline: Sequence[Mapping[str, Any]], index: str) -> Sequence[Mapping[str, Any]]:
        return await self._store.aggregated(WHAT, index, pipeline, seconds=MAINTENANCE_SECONDS)

    async def _drop(self, collection: Collection, name: str) -> None:
        try:
            await self._store.calls.attempt(lambda: collection.drop_index(name), seconds=MAINTENANCE_SECONDS)
        except PyMongoError as error:
            raise unavailable(f"drop the index {name}", error) from error

    async def _touch(self, queue: str, *, at: datetime) -> None:
        # signals: a queue that holds jobs is known
        await self._store.calls.run(
            MEND, lambda: self._store.signals.update_one({"_id": queue}, {"$max": {"usedAt": at}}, upsert=True)
        )


def _compare(collection: str, wanted: Sequence[Index], found: Mapping[str, Mapping[str, Any]]) -> Sequence[IndexState]:
    ours = {index.name: index for index in wanted}
    states = [IndexState(collection, name, "missing") for name in ours if name not in found]
    for name, description in found.items():
        if name in ours:
            if not ours[name].is_like(description):
                states.append(IndexState(collection, name, "different"))
        elif name != BY_ID:
            # Two indexes with the same keys cannot stand side by side.
            in_the_way = any(_keys(description) == list(index.keys) for index in wanted)
            states.append(IndexState(collection, name, "different" if in_the_way else "foreign"))
    return states


def _keys(description: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    return [(name, int(way) if isinstance(way, int | float) else way) for name, way in description["key"]]


def _specimen(document: Mapping[str, Any]) -> Specimen:
    lease, run_at = document.get("lease"), document.get("runAt")
    expires_at = plain(lease.get("expiresAt")) if isinstance(lease, Mapping) else None
    job, reason = _read(document)
    return Specimen(
        id=str(document["_id"]),
        raw_id=document["_id"],
        status=document.get("status"),
        retry_count=whole(document.get("retryCount"), 0),
        max_retries=whole(document.get("maxRetries"), DEFAULT_MAX_RETRIES),
        has_seq=document.get("seq") is not None,
        has_time=isinstance(plain(run_at), datetime),
        raw_run_at=run_at,
        run_at=job.run_at if job is not None and run_at is not None else None,
        is_finished_at=document.get("finishedAt") is not None,
        raw_lease=lease,
        lease_id=lease_id_in(document),
        lease_expires_at=expires_at if isinstance(expires_at, datetime) else None,
        cancel_requested=moves.FLAG in document,
        unreadable=reason,
    )


def _read(document: Mapping[str, Any]) -> tuple[Job | None, str | None]:
    """The job that a document says, or why it says none."""
    try:
        return read_document(document), None
    except Unreadable as error:
        return None, str(error)


def _take_back(one: Specimen, at: datetime) -> tuple[Filter, Update]:
    # processing -> pending, failed or cancelled, only while nobody can own it: a rescue without a lease
    target = Status.FAILED if one.retry_count >= one.max_retries else Status.PENDING
    target = Status.CANCELLED if one.cancel_requested else target
    guard = {
        "lease": {"$eq": one.raw_lease},
        **(moves.ASKED_TO_STOP if one.cancel_requested else moves.NOT_ASKED_TO_STOP),
    }
    fields = {"finishedAt": at} if target in FINISHED else {}
    error = AttemptError(attempt=one.retry_count, at=at, type="LeaseMissing", message="it was processing unleased")
    return guard, moves.without_lease(target, at=at, **fields) | moves.push_error(error)


def _bury(one: Specimen, at: datetime) -> tuple[Filter, Update]:
    # scheduled, pending -> failed, only while no attempt is left
    error = AttemptError(
        attempt=one.retry_count, at=at, type="AttemptsUsedUp", message="its attempts were used up before it was claimed"
    )
    fields = {"status": Status.FAILED.value, "finishedAt": at, "updatedAt": at}
    return {"retryCount": one.retry_count}, {"$set": fields} | moves.push_error(error)


def _give_time(one: Specimen, at: datetime) -> tuple[Filter, Update]:
    # stays scheduled, for the time that was meant; -> failed where that cannot be understood
    guard = {"runAt": {"$eq": one.raw_run_at}}
    if one.unreadable is not None:
        return guard, moves.quarantine_waiting(unreadable_error(one.unreadable, at=at), at=at)
    return guard, {"$set": {"runAt": one.run_at or at, "updatedAt": at}}


def _fail(one: Specimen, at: datetime) -> tuple[Filter, Update]:
    # whatever it says -> failed
    error = unreadable_error(f"there is no status {one.status!r}", at=at)
    return {}, moves.quarantine_waiting(error, at=at)


TREATMENTS: Mapping[str, Callable[[Specimen, datetime], tuple[Filter, Update]]] = {
    NO_LEASE.name: _take_back,
    # stays as it is, only while it is leased
    STRAY_LEASE.name: lambda one, at: ({"lease": {"$exists": True}}, {"$unset": {"lease": ""}}),
    NO_TIME.name: _give_time,
    # stays scheduled or pending, only while it says that it is finished
    WAITING_AND_FINISHED.name: lambda one, at: ({"finishedAt": {"$exists": True}}, {"$unset": {"finishedAt": ""}}),
    # stays finished, only while it does not say since when
    NEVER_PRUNED.name: lambda one, at: ({"finishedAt": None}, {"$set": {"finishedAt": at}}),
    USED_UP.name: _bury,
    UNKNOWN_STATUS.name: _fail,
}
"""For each check that a document can be mended of: the guard beside `_id` and status, and the update."""
