"""A MongoDB server as far as a client can tell: documents, a clock, a primary, a majority.

Each document changes atomically, and statements about several documents may be interrupted between any two of
them by other statements, which is what MongoDB promises and no more. A write is acknowledged when the majority
has it; a change of primary undoes what the majority had not got, acknowledged or not to anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, NotPrimaryError
from simulated.documents import Document, in_order, matches, projected, stored, updated, upserted
from simulated.history import History, Write

BEGINNING = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)
DUPLICATE_KEY = 11000
SCAN_PAUSE_SECONDS = 0.05
FLAVOURS: Mapping[str, Mapping[str, Any]] = {
    "replica set": {"setName": "rs0", "maxWireVersion": 21},
    "standalone": {"maxWireVersion": 21},
    "sharded": {"msg": "isdbgrid", "maxWireVersion": 21},
    "embedded": {"setName": "secantus", "maxWireVersion": 21},
}
"""What `hello` says of each kind of server; the adapter writes different statements to each."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent a statement."""

    process: str
    link: str


@dataclass(frozen=True, slots=True)
class Matched:
    """How many documents an update found."""

    matched_count: int
    modified_count: int
    upserted_id: Any = None


@dataclass(eq=False, slots=True)
class _Applied:
    """A write that the majority may not have yet."""

    durable_at: float
    collection: str
    write: Write
    document_id: Any
    before: Document | None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How this server behaves; durations in seconds."""

    flavour: str = "replica set"
    replication_seconds: float = 0.003
    interruption: float = 0.1
    """How probable it is that others get in between two documents of one statement."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A change stream: what it is to tell of, and what it has not told yet."""

    match: Mapping[str, Any]
    changes: asyncio.Queue[Document] = field(default_factory=asyncio.Queue)


@dataclass(eq=False)
class Collection:
    """Documents by their ids."""

    documents: dict[Any, Document] = field(default_factory=dict)
    indexes: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class SimulatedServer:
    """All nodes of it in one object. Methods are statements; each may be awaited by whoever sent it."""

    def __init__(self, random: Random, history: History, *, options: ServerOptions) -> None:
        self._loop = asyncio.get_running_loop()
        self._random = random
        self._history = history
        self._options = options
        self._collections: dict[str, Collection] = {}
        self._streams: dict[int, Stream] = {}
        self._tail: deque[_Applied] = deque()
        self._durable_at = 0.0
        self.pending_since: dict[str, float] = {}
        """When each pending job became so."""
        self.on_write: Callable[[Write], None] = lambda write: None
        self.clock_offset = timedelta(0)
        self.term = 1
        self.away = False

    # Itself

    def now(self) -> datetime:
        """Its clock."""
        return BEGINNING + timedelta(seconds=self._loop.time()) + self.clock_offset

    def loop_time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._loop.time()

    def jobs(self) -> Mapping[str, Document]:
        """The jobs as they stand."""
        return self._collection("jobs").documents

    def change_primary(self, *, clock_step: timedelta, undo: bool) -> None:
        """Another node takes over, with a clock of its own. If it is behind (`undo`), what the majority had not
        got is gone; what was acknowledged never is."""
        self.term += 1
        self.clock_offset += clock_step
        undone = 0
        while undo and self._tail and self._tail[-1].durable_at > self._loop.time():
            self._undo(self._tail.pop())
            undone += 1
        self._tail.clear()
        self._durable_at = self._loop.time()
        self._history.add("server", "change of primary", term=self.term, undone=undone, clock_step=clock_step)

    def _undo(self, applied: _Applied) -> None:
        documents = self._collection(applied.collection).documents
        if applied.before is None:
            documents.pop(applied.document_id, None)
        else:
            documents[applied.document_id] = applied.before
        self.pending_since[str(applied.document_id)] = self._loop.time()
        applied.write.rolled_back = True

    def command(self, name: str) -> Document:
        """`hello`, `buildInfo`, `ping`."""
        if name == "buildInfo":
            return {"version": "8.0.0"}
        if name == "ping":
            return {"ok": 1.0}
        assert name == "hello", name
        identity = {"primary": f"node{self.term}:27017", "me": f"node{self.term}:27017", "electionId": self.term}
        return {"localTime": stored(self.now()), **identity, **FLAVOURS[self._options.flavour]}

    # Statements

    async def find(
        self,
        name: str,
        query: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        *,
        order: Sequence[tuple[str, int]] = (),
        skip: int = 0,
        limit: int = 0,
    ) -> list[Document]:
        """Each document as it is when it is read, which need not be one moment for all."""
        term, found = self.term, []
        for document_id in self._ids(name, query):
            await self._let_others_in(term)
            document = self._collection(name).documents.get(document_id)
            if document is not None and matches(document, query):
                found.append(document)
        found = in_order(found, order)[skip:]
        return [projected(document, fields) for document in (found[:limit] if limit else found)]

    async def count(self, name: str, query: Mapping[str, Any], *, limit: int = 0) -> int:
        """How many fulfil the filter."""
        return len(await self.find(name, query, {"_id": 1}, limit=limit))

    async def insert_many(self, origin: Origin, name: str, documents: Sequence[Document]) -> None:
        """Unordered. Raises `BulkWriteError` with what was refused."""
        term, errors = self.term, []
        for index, document in enumerate(documents):
            await self._let_others_in(term)
            if refusal := self._refusal(name, document):
                errors.append({"index": index, **refusal})
            else:
                self._apply(origin, name, document["_id"], stored(document))
        await self._majority(term)
        if errors:
            raise BulkWriteError({"writeErrors": errors, "writeConcernErrors": [], "nInserted": 0})

    async def update(
        self,
        origin: Origin,
        name: str,
        query: Mapping[str, Any],
        update: Mapping[str, Any],
        *,
        many: bool,
        upsert: bool = False,
    ) -> Matched:
        """`update_one`, `update_many`."""
        term = self.term
        matched = await self._update(origin, name, query, update, many=many, upsert=upsert)
        await self._majority(term)
        return matched

    async def replace(self, origin: Origin, name: str, document: Document) -> Matched:
        """`replace_one` by id, with `upsert`."""
        term = self.term
        self._apply(origin, name, document["_id"], stored(document))
        await self._majority(term)
        return Matched(1, 1)

    async def bulk_write(self, origin: Origin, name: str, writes: Sequence[UpdateOne | UpdateMany]) -> Matched:
        """Unordered updates."""
        term, matched = self.term, 0
        for write in writes:
            await self._let_others_in(term)
            update: Any = write._doc
            result = await self._update(
                origin, name, write._filter, update, many=isinstance(write, UpdateMany), upsert=bool(write._upsert)
            )
            matched += result.matched_count
        await self._majority(term)
        return Matched(matched, matched)

    async def find_one_and_update(
        self, origin: Origin, name: str, query: Mapping[str, Any], update: Mapping[str, Any]
    ) -> Document | None:
        """Returns the document after the update."""
        term = self.term
        ids = self._ids(name, query)
        after = updated(self._collection(name).documents[ids[0]], update) if ids else None
        if after is not None:
            self._apply(origin, name, after["_id"], after)
        await self._majority(term)
        return stored(after) if after is not None else None

    async def delete(self, origin: Origin, name: str, query: Mapping[str, Any], *, many: bool) -> int:
        """`delete_one`, `delete_many`; returns how many went."""
        term, deleted = self.term, 0
        for document_id in self._ids(name, query)[: None if many else 1]:
            await self._let_others_in(term)
            document = self._collection(name).documents.get(document_id)
            if document is not None and matches(document, query):
                self._apply(origin, name, document_id, None)
                deleted += 1
        await self._majority(term)
        return deleted

    def index_information(self, name: str) -> Document:
        """The indexes by name."""
        return dict(self._collection(name).indexes)

    def create_index(self, name: str, index: Mapping[str, Any]) -> None:
        """Create one, as its model describes it."""
        described = {option: value for option, value in index.items() if option not in ("name", "key")}
        self._collection(name).indexes[index["name"]] = {"key": list(index["key"].items()), **described}

    def watch(self, pipeline: Sequence[Mapping[str, Any]]) -> int:
        """The cursor of a change stream, from now on. Of its pipeline the filter is obeyed: documents are small."""
        [match] = [stage["$match"] for stage in pipeline if "$match" in stage]
        cursor = len(self._streams) + 1
        self._streams[cursor] = Stream(match)
        return cursor

    async def next_changes(self, cursor: int, seconds: float) -> list[Document]:
        """What changed since the last question; if that is nothing, the next change within so many seconds."""
        changes = self._streams[cursor].changes
        try:
            async with asyncio.timeout(seconds):
                found = [await changes.get()]
        except TimeoutError:
            return []
        while not changes.empty():
            found.append(changes.get_nowait())
        return found

    def end_stream(self, cursor: int) -> None:
        """Nobody wants to hear more."""
        self._streams[cursor] = Stream({"operationType": "none"})

    # Within a statement

    async def _update(
        self,
        origin: Origin,
        name: str,
        query: Mapping[str, Any],
        update: Mapping[str, Any],
        *,
        many: bool,
        upsert: bool,
    ) -> Matched:
        term, matched = self.term, 0
        documents = self._collection(name).documents
        for document_id in self._ids(name, query):
            await self._let_others_in(term)
            # The filter holds at the moment of the write, or the document is left alone.
            if document_id in documents and matches(documents[document_id], query):
                self._apply(origin, name, document_id, updated(documents[document_id], update))
                matched += 1
                if not many:
                    break
        if matched or not upsert:
            return Matched(matched, matched)
        new = upserted(query, update)
        if refusal := self._refusal(name, new):
            raise DuplicateKeyError(refusal["errmsg"], DUPLICATE_KEY, refusal)
        self._apply(origin, name, new["_id"], new)
        return Matched(0, 0, new["_id"])

    def _apply(self, origin: Origin, name: str, document_id: Any, after: Document | None) -> None:
        documents = self._collection(name).documents
        before = documents.get(document_id)
        if after is None:
            del documents[document_id]
        else:
            documents[document_id] = after
            self._tell(name, before, after)
        write = Write(self._loop.time(), self.now(), origin.process, origin.link, str(document_id), before, after)
        if name == "jobs" and before != after:
            self._observe(write)
        self._replicate(_Applied(0.0, name, write, document_id, before))

    def _tell(self, name: str, before: Document | None, after: Document) -> None:
        change = _change(name, before, after)
        for stream in self._streams.values():
            if matches(change, stream.match):
                stream.changes.put_nowait(change)

    def _observe(self, write: Write) -> None:
        self._history.wrote(write)
        self.on_write(write)
        statuses = [document["status"] if document else None for document in (write.before, write.after)]
        if statuses[0] != statuses[1]:
            self.pending_since[write.job_id] = write.at

    def _replicate(self, applied: _Applied) -> None:
        delay = self._random.expovariate(1 / self._options.replication_seconds)
        self._durable_at = applied.durable_at = max(self._durable_at, self._loop.time() + delay)
        self._tail.append(applied)
        while self._tail and self._tail[0].durable_at <= self._loop.time():
            self._tail.popleft()

    async def _majority(self, term: int) -> None:
        """Until the majority has all that this statement wrote or saw."""
        while (left := self._durable_at - self._loop.time()) > 0:
            await asyncio.sleep(left)
            self._still_primary(term)
        self._still_primary(term)

    async def _let_others_in(self, term: int) -> None:
        if self._random.random() < self._options.interruption:
            await asyncio.sleep(self._random.random() * SCAN_PAUSE_SECONDS)
        self._still_primary(term)

    def _still_primary(self, term: int) -> None:
        if term != self.term:
            raise NotPrimaryError("the primary stepped down", {"code": 11602, "ok": 0})

    def _ids(self, name: str, query: Mapping[str, Any]) -> list[Any]:
        documents = self._collection(name).documents
        wanted = query.get("_id")
        if isinstance(wanted, str):
            return [wanted] if wanted in documents and matches(documents[wanted], query) else []
        return [document_id for document_id, document in documents.items() if matches(document, query)]

    def _refusal(self, name: str, document: Document) -> Document | None:
        if document["_id"] not in self._collection(name).documents:
            return None
        message = f"E11000 duplicate key error collection: {name} dup key: {{ _id: ... }}"
        return {"code": DUPLICATE_KEY, "keyPattern": {"_id": 1}, "errmsg": message}

    def _collection(self, name: str) -> Collection:
        return self._collections.setdefault(name, Collection({}, {"_id_": {"key": [("_id", 1)]}}))


def _change(name: str, before: Document | None, after: Document) -> Document:
    """What a change stream says of a write."""
    key = {"ns": {"coll": name}, "documentKey": {"_id": after["_id"]}}
    if before is None:
        return key | {"operationType": "insert", "fullDocument": after}
    fields = {name: value for name, value in after.items() if before.get(name) != value}
    return key | {"operationType": "update", "updateDescription": {"updatedFields": fields}}
