"""The collections, with the guarantees pinned to them, and what the server at the other end can do.

Whatever a URI says, jobs are written with a majority, journalled, and read from the primary. Hints keep the
planner of a real MongoDB on the right index; a hint whose index is missing is repeated once without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import structlog
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from jobqueue.errors import Unavailable
from jobqueue.job import LAST_INSTANT
from jobqueue.mongo.calls import CLIENT_SECONDS, HINT_REFUSED, Calls, calls_in_flight, settled, unavailable
from jobqueue.mongo.documents import plain
from jobqueue.mongo.reach import explain
from jobqueue.repository import Features
from jobqueue.telemetry import UNOBSERVED, Observer

log = structlog.get_logger(__name__)

Client = AsyncMongoClient[dict[str, Any]]
"""PyMongo's asyncio client, or Motor's, which has the same calls."""

Collection = AsyncCollection[dict[str, Any]]
Hint = Mapping[str, Any]
T = TypeVar("T")

DURABLE = WriteConcern(w="majority", j=True)
HASTY = WriteConcern(w=1)
"""Acknowledged by one node: for hints, and for what is written again soon."""

LOCAL = ReadConcern("local")
EMBEDDED_SET = "secantus"
"""The replica set name of the embedded server, by which it is known."""

BY_ID = "_id_"

MAX_IDS = 1_000
"""In one filter: an update must fit 16 MiB, and a batch must not hold up the others."""

TRANSACTION_TRIES = 3
"""Each may fail because another statement writes to the same documents."""


class Store:
    """The collections of one database."""

    def __init__(
        self,
        client: Client,
        database_name: str,
        *,
        features: Features | None = None,
        client_seconds: float = CLIENT_SECONDS,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self.client = client
        self.database = client[database_name]
        self.jobs = self._pinned("jobs", DURABLE)
        self.signals = self._pinned("signals", DURABLE)
        self.hasty_signals = self._pinned("signals", HASTY)
        self.workers = self._pinned("workers", HASTY)
        self.limits = self._pinned("limits", HASTY)
        self.counters = self._pinned("counters", DURABLE)
        self.job_logs = self._pinned("job_logs", DURABLE)
        self.observer = observer
        self.calls = Calls(calls_in_flight())
        self.client_seconds = client_seconds
        self.features = features or Features(name="unknown", version="")
        self._given = features is not None
        self._hints = False

    @property
    def by_id(self) -> Hint:
        """Options of a write by id: without the hint a cached plan could scan a status instead."""
        return {"hint": BY_ID} if self._hints else {}

    @property
    def sparse(self) -> bool:
        """Whether indexes leave out absent fields by being sparse, not by a partial filter."""
        return not self._hints

    @property
    def takes_bytes(self) -> bool:
        """Whether a document may be handed over encoded, so that the driver need not do it again. A server that
        cannot be asked what it is, such as mongomock, understands documents only."""
        return not self._given

    async def find_out(self) -> None:
        """Ask the server what it can do. Raises `Unavailable`, with the names of the servers: it is for the start."""
        if self._given:
            return
        try:
            hello = await self.calls.attempt(lambda: self.client.admin.command("hello"), seconds=CLIENT_SECONDS)
            build = await self.calls.attempt(lambda: self.client.admin.command("buildInfo"), seconds=CLIENT_SECONDS)
        except PyMongoError as error:
            raise Unavailable(f"cannot connect: {explain(error, self.client.topology_description)}") from error
        self.features = features_of(hello, build)
        self._hints = not self.features.embedded
        self._tell_what_is_missing()

    async def server_time(self) -> datetime:
        """The primary's own time. A server that cannot be asked has none but ours. Raises `Unavailable`."""
        if self._given:
            return LAST_INSTANT
        hello = await self.calls.run("read the server's clock", lambda: self.client.admin.command("hello"))
        time: datetime = plain(hello["localTime"])
        return time

    async def together(self, call: Callable[[Hint], Awaitable[T]]) -> T:
        """Run what `call` does as one: in a transaction where the server has them, otherwise just so.

        To be run as one driver's call, within its deadline, and raises the driver's errors. `call` gets the options
        of each of its statements; it is called again after what it did was undone."""
        if not self.features.transactions:
            return await call({})
        async with await settled(self.client.start_session()) as session:
            tries = 0
            while True:
                try:
                    async with await settled(session.start_transaction(LOCAL, DURABLE, ReadPreference.PRIMARY)):
                        return await call({"session": session})
                except PyMongoError as error:
                    tries += 1
                    if tries == TRANSACTION_TRIES or not error.has_error_label("TransientTransactionError"):
                        raise

    async def hinted(
        self, what: str, index: str, call: Callable[[Hint], Awaitable[T]], *, seconds: float = CLIENT_SECONDS
    ) -> T:
        """The answer of a call that is to use this index, without the hint when the index is missing."""
        options: Hint = {"hint": index} if self._hints else {}
        try:
            return await self.calls.attempt(lambda: call(options), seconds=seconds)
        except OperationFailure as error:
            if not options or error.code != HINT_REFUSED or "hint" not in str(error):
                raise unavailable(what, error) from error
        except PyMongoError as error:
            raise unavailable(what, error) from error
        log.warning("index is missing", index=index)
        return await self.calls.run(what, lambda: call({}), seconds=seconds)

    async def aggregated(
        self, what: str, index: str, pipeline: Sequence[Mapping[str, Any]], *, seconds: float = CLIENT_SECONDS
    ) -> Sequence[Mapping[str, Any]]:
        """What a pipeline makes of the jobs; `hinted` as any other call."""

        async def aggregate(hint: Hint) -> Sequence[Mapping[str, Any]]:
            cursor = await settled(self.jobs.aggregate(pipeline, **hint))
            rows: Sequence[Mapping[str, Any]] = await cursor.to_list(None)
            return rows

        return await self.hinted(what, index, aggregate, seconds=seconds)

    def _tell_what_is_missing(self) -> None:
        features = self.features
        if not (features.replica_set or features.sharded):
            log.warning("MongoDB is no replica set: no transactions, no change streams, and all jobs on one machine")
        if not features.embedded and not self.client.options.retry_writes:
            log.warning("retryWrites=false makes claims and outcomes fail in every election")

    def _pinned(self, name: str, write_concern: WriteConcern) -> Collection:
        return self.database.get_collection(
            name,
            write_concern=write_concern,
            read_preference=ReadPreference.PRIMARY,
            read_concern=LOCAL,
        )


def features_of(hello: Mapping[str, Any], build: Mapping[str, Any]) -> Features:
    """What these two answers say about a server."""
    embedded = hello.get("setName") == EMBEDDED_SET
    sharded = hello.get("msg") == "isdbgrid"
    replica_set = "setName" in hello
    return Features(
        name="SecantusDB" if embedded else "MongoDB",
        version=str(build.get("version", "")),
        replica_set=replica_set,
        # Of a cluster each question may go to another router, and only one of them knows the stream.
        change_streams=replica_set,
        embedded=embedded,
        sharded=sharded,
        pipeline_updates=True,  # what stands in for a server in tests may ignore them without a word
        transactions=(replica_set or sharded) and "logicalSessionTimeoutMinutes" in hello,
    )


def chunks(items: Sequence[T], size: int) -> Sequence[Sequence[T]]:
    """The items in runs of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]
