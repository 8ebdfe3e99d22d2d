"""Queues: which there are, what waits in them, and waking others up when work arrives.

A job that is stored tells of itself: the change stream says so (`changes.py`). A signal tells of jobs that became
pending in another way, and of those that a process stored for its own workers and has no slot for.

The collection `signals` has one document per queue: `{_id: queue, usedAt, n, jobs}`. A queue has its document before
its first job, so "every queue" is what stands there. `n` counts the signals, which makes each of them a change
that a change stream reports; `jobs` are the candidates that the last one was about, unless they were many, so that
whoever hears of them need not look for them. A signal is a hint: written by one node only, not waited for, never an
error.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from pymongo import UpdateOne

from jobqueue.clock import Clock
from jobqueue.errors import Unavailable
from jobqueue.job import EPOCH, Candidate, Status
from jobqueue.mongo import indexes
from jobqueue.mongo.cached import Cached
from jobqueue.mongo.calls import CLIENT_SECONDS, MAINTENANCE_SECONDS
from jobqueue.mongo.changes import MOST_BYTES, Change, ChangeStream
from jobqueue.mongo.documents import StoredDocument, Unreadable, plain, read_candidate
from jobqueue.mongo.fresh import FreshJobs
from jobqueue.mongo.store import Store, chunks
from jobqueue.pace import Pace
from jobqueue.repository import CROWD, QueueCount, QueueSignal

log = structlog.get_logger(__name__)

TOUCH_AGAIN = timedelta(hours=1)
"""How long this process relies on a queue's document without writing to it."""

MOST_TOUCHED = 1_000
"""So many queues are noted in one write, and not many more are remembered."""

SIGNAL_SECONDS = 0.01
SIGNALS_AT_ONCE = 10
"""So many signals of a process go without delay, then one in so many seconds, for all jobs that came meanwhile."""

QUESTION_SECONDS = 0.005
QUESTIONS_AT_ONCE = 20
"""Who listens asks again without delay so many times, then in step: what a job waits at most to be heard of. One build
of the embedded server answers after every write, whether or not it is one to be told of."""

MOST_TOLD = 20
"""With more candidates a signal names none of them."""


class Wakeups:
    """The verbs about queues."""

    def __init__(self, store: Store, fresh: FreshJobs, clock: Clock) -> None:
        self._store = store
        self._fresh = fresh
        self._clock = clock
        self._touched: dict[str, datetime] = {}
        self._unsent: defaultdict[str, list[Candidate]] = defaultdict(list)
        self._signalled_at = EPOCH
        self._pace = Pace(SIGNAL_SECONDS, burst=SIGNALS_AT_ONCE, clock=clock)
        self._questions = Pace(QUESTION_SECONDS, burst=QUESTIONS_AT_ONCE, clock=clock)
        self._sender: asyncio.Task[None] | None = None
        self._counts = Cached(self._count, clock)

    async def ensure(self, queues: Iterable[str], *, at: datetime) -> None:
        """Make sure that these queues are known, before a job is put into one of them."""
        untouched = [queue for queue in queues if at - self._touched.get(queue, EPOCH) > TOUCH_AGAIN]
        for some in chunks(untouched, MOST_TOUCHED):
            await self._touch(some, at=at)
            if len(self._touched) >= MOST_TOUCHED:
                self._touched.clear()  # clients name queues; one more write to each that is still in use
            self._touched |= dict.fromkeys(some, at)

    async def known(self) -> Sequence[str]:
        """The name of every known queue."""
        # read: the queues
        found = await self._store.calls.run("read the queues", lambda: self._store.signals.find({}).to_list(None))
        return sorted(document["_id"] for document in found if isinstance(document["_id"], str))

    async def counts(self) -> Sequence[QueueCount]:
        """Every known queue and what waits in it."""
        return await self._counts.get()

    def signal(self, candidates: Collection[Candidate], *, at: datetime) -> None:
        """Wake others. Returns at once."""
        self._signalled_at = at
        for candidate in candidates:
            self._unsent[candidate.queue].append(candidate)
        if self._unsent and (self._sender is None or self._sender.done()):
            self._sender = self._store.calls.spawn(self._send())

    async def stream(self, on_open: Callable[[], None]) -> AsyncGenerator[QueueSignal, None]:
        """What became pending from `on_open` on, by anybody; ends with a crowd, which costs less to look for. Nothing
        is asked of the server while the one who listens is busy with a signal."""
        if not self._store.features.change_streams:
            return
        stream = await ChangeStream.open(self._store)
        on_open()
        try:
            while True:
                changes = await stream.next()
                if len(changes) >= CROWD:
                    return
                for signal in self._heard(changes):
                    yield signal
                await asyncio.sleep(self._questions.reserve())
        finally:
            self._store.calls.spawn(stream.close())

    async def prune(self, *, unused_since: datetime) -> int:
        """Forget queues that nobody used since then and that hold no job that waits or runs.

        `unused_since` is to be hours ago: a process relies for `TOUCH_AGAIN` on what it wrote here."""
        pruned = 0
        for queue in await self._unused(unused_since):
            if not await self._holds_jobs(queue):
                pruned += await self._forget(queue, unused_since=unused_since)
        return pruned

    async def _touch(self, queues: Sequence[str], *, at: datetime) -> None:
        # signals: a queue exists from before its first job on
        writes = [UpdateOne({"_id": queue}, {"$max": {"usedAt": at}}, upsert=True) for queue in queues]
        await self._store.calls.run("note the queues", lambda: self._store.signals.bulk_write(writes, ordered=False))

    async def _send(self) -> None:
        while self._unsent:
            await asyncio.sleep(self._pace.reserve())
            unsent, self._unsent = self._unsent, defaultdict(list)
            for queue, candidates in unsent.items():
                await self._signal(queue, candidates, at=self._signalled_at)

    async def _signal(self, queue: str, candidates: Sequence[Candidate], *, at: datetime) -> None:
        # signals: tell other processes, as far as one node
        update: dict[str, Any] = {"$max": {"usedAt": at}, "$inc": {"n": 1}} | _told(candidates)
        try:
            await self._store.calls.run(
                "signal",
                lambda: self._store.hasty_signals.update_one({"_id": queue}, update, upsert=True),
                seconds=CLIENT_SECONDS,
            )
        except Unavailable as error:
            log.debug("signal lost", queue=queue, reason=str(error))

    def _heard(self, changes: Sequence[Change]) -> Sequence[QueueSignal]:
        """The signals among these changes, and one for each queue in which jobs were stored."""
        signals = [_read_signal(change) for change in changes if change["ns"]["coll"] == "signals"]
        stored: defaultdict[str, list[Candidate]] = defaultdict(list)
        for change in changes:
            if change["ns"]["coll"] == "jobs" and (candidate := self._meet(change["fullDocument"])) is not None:
                stored[candidate.queue].append(candidate)
        return [*signals, *(QueueSignal(queue, candidates) for queue, candidates in stored.items())]

    def _meet(self, document: StoredDocument) -> Candidate | None:
        try:
            candidate = read_candidate(document)
        except Unreadable:
            return None  # made by hand, and not a job yet: the adoption deals with it
        self._fresh.keep(candidate.id, document, size=MOST_BYTES)
        return candidate

    async def _unused(self, since: datetime) -> Sequence[str]:
        # read: queues that nobody used since then
        found = await self._store.calls.run(
            "read the queues", lambda: self._store.signals.find({"usedAt": {"$lt": since}}).to_list(None)
        )
        return [document["_id"] for document in found]

    async def _holds_jobs(self, queue: str) -> bool:
        unfinished = (Status.PENDING, Status.SCHEDULED, Status.PROCESSING)
        found = [await self._find_one(queue, status) for status in unfinished]
        return any(found)

    async def _find_one(self, queue: str, status: Status) -> bool:
        # read: whether this queue has a job in this state
        query = {"queue": queue, "status": status.value}
        found = await self._store.calls.run(
            "look into a queue",
            lambda: self._store.jobs.find_one(query, {"_id": 1}),
            seconds=MAINTENANCE_SECONDS,
        )
        return found is not None

    async def _forget(self, queue: str, *, unused_since: datetime) -> int:
        # signals: gone, only while still unused: whoever brings a job touches the queue first
        query = {"_id": queue, "usedAt": {"$lt": unused_since}}
        result = await self._store.calls.run("forget a queue", lambda: self._store.signals.delete_one(query))
        self._touched.pop(queue, None)
        return result.deleted_count

    async def _count(self) -> Sequence[QueueCount]:
        names = await self.known()
        pending = await self._group({"queue": {"$in": names}, "status": Status.PENDING.value}, indexes.CLAIM)
        others = {"status": {"$in": [Status.SCHEDULED.value, Status.PROCESSING.value]}}
        rows = _by_state([*pending, *await self._group(others, indexes.STATUS_NEWEST)])
        return [_queue_count(name, rows) for name in names]

    async def _group(self, match: Mapping[str, Any], index: str) -> Sequence[Mapping[str, Any]]:
        # read: count and oldest of each queue and state
        pipeline: Sequence[Mapping[str, Any]] = [
            {"$match": match},
            {
                "$group": {
                    "_id": {"queue": "$queue", "status": "$status"},
                    "count": {"$sum": 1},
                    "oldest": {"$min": "$runAt"},
                }
            },
        ]
        return await self._store.aggregated("count the queues", index, pipeline)


def _told(candidates: Sequence[Candidate]) -> dict[str, Any]:
    if len(candidates) > MOST_TOLD:
        return {"$unset": {"jobs": ""}}
    jobs = [{"_id": each.id, "priority": -each.rank, "runAt": each.run_at} for each in candidates]
    return {"$set": {"jobs": jobs}}


def _read_signal(change: Mapping[str, Any]) -> QueueSignal:
    """The signal of a change; what another version, or a person, wrote may name no candidates."""
    queue = str(change["documentKey"]["_id"])
    changed = change.get("fullDocument") or change.get("updateDescription", {}).get("updatedFields", {})
    try:
        return QueueSignal(queue, [read_candidate({**job, "queue": queue}) for job in changed["jobs"]])
    except (KeyError, TypeError, Unreadable):
        return QueueSignal(queue)


def _by_state(rows: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """The rows by queue and state. A job whose queue or state is no text, as somebody typed it, is in no queue."""
    named = [(row["_id"].get("queue"), row["_id"].get("status"), row) for row in rows]
    return {(queue, status): row for queue, status, row in named if isinstance(queue, str) and isinstance(status, str)}


def _queue_count(name: str, rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> QueueCount:
    def count(status: Status) -> int:
        row = rows.get((name, status.value))
        return int(row["count"]) if row is not None else 0

    pending = rows.get((name, Status.PENDING.value))
    oldest = plain(pending["oldest"]) if pending is not None else None
    return QueueCount(
        name,
        pending=count(Status.PENDING),
        scheduled=count(Status.SCHEDULED),
        processing=count(Status.PROCESSING),
        oldest_pending_at=oldest if isinstance(oldest, datetime) else None,
    )
