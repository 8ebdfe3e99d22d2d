"""The change stream that wakes workers: jobs as they are stored, and signals about jobs that were there before.

It is asked for with plain commands, which both drivers share: an answer holds all that has changed meanwhile, not one
change at a time. Nothing is resumed: after an error the stream is opened from then on, and whoever listens looks once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from jobqueue.job import NEAR, Status
from jobqueue.loop import take_note
from jobqueue.mongo.calls import settled, unavailable
from jobqueue.mongo.documents import CODEC
from jobqueue.mongo.store import Store
from jobqueue.repository import CROWD

log = structlog.get_logger(__name__)

WHAT = "watch for work"

AWAIT_MILLISECONDS = 2_000
"""How long the server holds a question open: half a command a second when idle, and how long closing may take."""

MOST_BYTES = 16 << 10
"""A job that is larger is told of without what is in it: it is sent to every idle process, and claimed by one."""

BEHIND_NEAR = NEAR[:-1] + chr(ord(NEAR[-1]) + 1)
"""The first text after all that begin with `NEAR`: comparing costs a server less than a pattern, for each listener."""

SIGNALLED = {"ns.coll": "signals", "operationType": {"$in": ["insert", "update"]}}
STORED = {
    "ns.coll": "jobs",
    "operationType": "insert",
    "fullDocument.status": Status.PENDING.value,
    # Those of a process with workers are run there; it signals what it has no slots for.
    "fullDocument.insertId": {"$not": {"$gte": NEAR, "$lt": BEHIND_NEAR}},
}
SMALL_OR_CANDIDATE = {
    "$cond": [
        {"$lte": [{"$bsonSize": {"$ifNull": ["$fullDocument", {}]}}, MOST_BYTES]},
        "$fullDocument",
        {name: f"$fullDocument.{name}" for name in ("_id", "queue", "priority", "runAt")},
    ]
}

Change = Mapping[str, Any]


class ChangeStream:
    """An open stream of a database's news. Close it, also after an error."""

    def __init__(self, store: Store, session: Any, cursor: Mapping[str, Any]) -> None:
        self._store = store
        self._session = session
        self._id = cursor["id"]
        self._collection = cursor["ns"].partition(".")[2]
        self._asking: asyncio.Task[Any] | None = None

    @classmethod
    async def open(cls, store: Store) -> ChangeStream:
        """What changes from now on. Raises `Unavailable`."""
        pipeline = [
            {"$changeStream": {}},
            {"$match": {"$or": [SIGNALLED, STORED]}},
            {"$set": {"fullDocument": SMALL_OR_CANDIDATE}},
        ]
        session: Any = await settled(store.client.start_session())  # to which the cursor will belong
        try:
            answer = await store.database.command(
                "aggregate",
                1,
                pipeline=pipeline,
                cursor={"batchSize": 0},
                readConcern={"level": "majority"},
                session=session,
            )
        except PyMongoError as error:
            await settled(session.end_session())
            raise unavailable(WHAT, error) from error
        return cls(store, session, answer["cursor"])

    async def next(self) -> Sequence[Change]:
        """What has changed since the last question, nothing when that is nothing for `AWAIT_MILLISECONDS`.

        Raises `Unavailable`, also when the server has closed the stream."""
        # In a task of its own: a call that is cancelled goes on in the driver, and must end before the close.
        self._asking = self._store.calls.spawn(self._get_more())
        try:
            answer = await asyncio.shield(self._asking)
        except PyMongoError as error:
            raise unavailable(WHAT, error) from error
        self._id = answer["cursor"]["id"]
        changes: Sequence[Change] = answer["cursor"]["nextBatch"]
        return changes

    async def close(self) -> None:
        """Wait for the question that is under way, and let the server forget the stream."""
        if self._asking is not None:
            await asyncio.wait([self._asking])
            take_note(self._asking)
        try:
            await self._store.database.command(
                "killCursors", self._collection, cursors=[self._id], session=self._session
            )
        except PyMongoError as error:
            log.debug("stream not closed", error=type(error).__name__)
        await settled(self._session.end_session())

    async def _get_more(self) -> Mapping[str, Any]:
        return await self._store.database.command(
            "getMore",
            self._id,
            collection=self._collection,
            maxTimeMS=AWAIT_MILLISECONDS,
            batchSize=CROWD,
            session=self._session,
            codec_options=CODEC,
        )
