"""Looking at jobs: one, a page of them, how many.

A page is read in windows of `seq`, so that a filter without an index of its own cannot make one request read
the whole collection: the page ends early instead, with a cursor from which the next goes on. On MongoDB a
window is so many index entries; the embedded server, where every query costs what it matches and `limit` does
not help, gets ranges of `seq` that widen going back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import bson
from pymongo.errors import PyMongoError

from jobqueue.batching import BatchLimits, GroupCommit, Undelivered
from jobqueue.clock import Clock
from jobqueue.errors import JobNotFound, Unavailable
from jobqueue.job import Job, Status
from jobqueue.mongo import indexes
from jobqueue.mongo.calls import CLIENT_SECONDS, settled, unavailable
from jobqueue.mongo.documents import read_or_salvage
from jobqueue.mongo.moves import Filter
from jobqueue.mongo.store import Store
from jobqueue.repository import JobFilter, Page

WHAT = "list jobs"
READ = "read the job"
LAST_SEQ = 2**63 - 1
NEWEST_FIRST = [("seq", -1)]

WINDOW_ENTRIES = 20_000
"""How many jobs one request reads at most when it filters by what has no index."""

FIRST_WINDOW = 1_000_000
WIDENING = 8
"""The embedded server's windows, in microseconds of `seq`: a second, then eight times as far back each time."""

SCAN_SECONDS = 2.0
"""After this long a page ends with what it has."""

LOOKS = BatchLimits(items=32, eager=2, in_flight=8)
"""Looks at single jobs. Two at a time, so that one that hangs does not hold the others; few in one answer, since each
job may be large."""

Found = Mapping[str, Any] | None
T = TypeVar("T")


class Pages:
    """The verbs that only look."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._looks = GroupCommit[str, Found](self._find, name="looks at jobs", limits=LOOKS)

    async def get(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""
        document = await self._document(job_id)
        if document is None:
            raise JobNotFound(job_id)
        return read_or_salvage(document)

    async def aclose(self) -> None:
        """Wait for the looks that are under way."""
        await self._looks.aclose()

    async def _document(self, job_id: str) -> Mapping[str, Any] | None:
        [found] = await self._looks.submit_all([job_id], [len(job_id)], seconds=CLIENT_SECONDS)
        if isinstance(found, PyMongoError):
            raise unavailable(READ, found) from found
        if isinstance(found, Undelivered):
            raise Unavailable(f"cannot {READ}: MongoDB did not answer in time")
        if isinstance(found, BaseException):
            raise found
        return found

    async def _find(self, job_ids: Sequence[str]) -> Sequence[Found]:
        # read: jobs by id, those together that were asked for while others were under way
        if len(job_ids) == 1:
            return [await self._attempt(lambda: self._store.jobs.find_one({"_id": job_ids[0]}))]
        some = {"_id": {"$in": list(dict.fromkeys(job_ids))}}
        documents = await self._attempt(lambda: self._store.jobs.find(some).to_list(None))
        by_id = {document["_id"]: document for document in documents}
        return [by_id.get(job_id) for job_id in job_ids]

    async def _attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self._store.calls.attempt(call, seconds=CLIENT_SECONDS)

    async def list(self, which: JobFilter, *, before: int | None, limit: int, max_bytes: int) -> Page:
        """Jobs newest first, from just before `before`."""
        clock = self._clock.monotonic
        deadline, floor, width = clock() + SCAN_SECONDS, _floor(which), FIRST_WINDOW
        high = LAST_SEQ if before is None else before
        found: list[Sized] = []
        while high > floor and clock() < deadline:
            low = max(floor, await self._low_end(which, high, width))
            room = _Room(limit, max_bytes, found)
            more = await self._read_window(which, low, high, room)
            found += more
            if more and room.is_exceeded_by(more):
                return _cut(found)
            high, width = low, width * WIDENING
        return Page([one.job for one in found], high if high > floor else None)

    async def count(self, status: Status, *, limit: int) -> int:
        """How many jobs stand in `status`, counted up to `limit`."""
        # read: count of one state, from the index
        return await self._store.hinted(
            "count jobs",
            indexes.STATUS_NEWEST,
            lambda hint: self._store.jobs.count_documents({"status": status.value}, limit=limit, **hint),
        )

    async def _low_end(self, which: JobFilter, high: int, width: int) -> int:
        if self._store.features.embedded:
            return min(high, _micros(self._clock.now())) - width
        unserved = (which.type, which.queue, which.tag, which.created_before)
        return 0 if unserved == (None,) * 4 else await self._entries_back(which, high)

    async def _entries_back(self, which: JobFilter, high: int) -> int:
        # read: the seq so many index entries back, from the index alone
        query, index = _by_seq(which.status, 0, high)
        found = await self._store.hinted(
            WHAT,
            index,
            lambda hint: self._store.jobs.find(
                query, {"_id": 0, "seq": 1}, sort=NEWEST_FIRST, skip=WINDOW_ENTRIES, limit=1, **hint
            ).to_list(None),
        )
        return int(found[0]["seq"]) if found else 0

    async def _read_window(self, which: JobFilter, low: int, high: int, room: _Room) -> Sequence[Sized]:
        # read: jobs newest first between two sequence numbers
        query, index = _by_seq(which.status, low, high)
        query |= _others(which)
        return await self._store.hinted(
            WHAT,
            index,
            lambda hint: _collect(self._store.jobs.find(query, sort=NEWEST_FIRST, limit=room.jobs, **hint), room),
        )


class Sized(NamedTuple):
    """A job of a page, and what its document weighs in bytes."""

    job: Job
    size: int


class _Room:
    """How much more goes into a page. One job more than fits is read: it tells that there is a next page."""

    def __init__(self, limit: int, max_bytes: int, found: Sequence[Sized]) -> None:
        self.jobs = limit + 1 - len(found)
        self._bytes = max_bytes - sum(one.size for one in found)
        self._is_first = not found

    def is_exceeded_by(self, found: Sequence[Sized]) -> bool:
        """Whether the last of these is the one too many. The first job of a page always fits."""
        heavy = sum(one.size for one in found) > self._bytes
        return len(found) >= self.jobs or (heavy and not (self._is_first and len(found) <= 1))


def _by_seq(status: Status | None, low: int, high: int) -> tuple[Filter, str]:
    between: Filter = {"seq": {"$gte": low, "$lt": high}}
    if status is None:
        return between, indexes.NEWEST
    return {"status": status.value, **between}, indexes.STATUS_NEWEST


def _others(which: JobFilter) -> Filter:
    """The clauses that no index serves."""
    clauses: Filter = {"type": which.type, "queue": which.queue, "tags": which.tag}
    created: Filter = {"$gte": which.created_after, "$lt": which.created_before}
    clauses["createdAt"] = {operator: bound for operator, bound in created.items() if bound is not None} or None
    return {name: clause for name, clause in clauses.items() if clause is not None}


def _floor(which: JobFilter) -> int:
    # A job's seq is never before its creation, in microseconds.
    return _micros(which.created_after) if which.created_after is not None else 0


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1000) * 1000


async def _collect(cursor: Any, room: _Room) -> Sequence[Sized]:
    """What the cursor has, up to the first that does not fit."""
    found: list[Sized] = []
    async for document in cursor:
        found.append(Sized(read_or_salvage(document), len(bson.encode(document))))
        if room.is_exceeded_by(found):
            break
    await settled(cursor.close())
    return found


def _cut(found: Sequence[Sized]) -> Page:
    """The page that leaves out the last one found, of which it is known that it does not fit.

    Two processes may have given the same seq to two jobs: those stay on one page, or the second would be lost."""
    kept = [one.job for one in found[:-1]] or [found[0].job]
    extra = found[-1].job.seq
    apart = [job for job in kept if job.seq != extra]
    page = apart or kept
    return Page(page, page[-1].seq)
