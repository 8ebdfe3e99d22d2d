"""Clients of the simulated server: the calls of PyMongo and Motor that the adapter uses, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import IndexModel, UpdateMany, UpdateOne
from pymongo.asynchronous.settings import TopologySettings
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription
from simulated.blocking import wait_for
from simulated.documents import Document
from simulated.network import Link, bulk_undecided, statement_undecided
from simulated.server import Matched, Origin, SimulatedServer

Query = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What the adapter asks a client about itself. That it retries is a lie: every fault gets to the engine."""

    retry_writes: bool = True


class SimulatedClient:
    """An asyncio client."""

    options = Options()

    def __init__(self, server: SimulatedServer, link: Link) -> None:
        self._server = server
        self._link = link
        self.admin = SimulatedDatabase(server, link)

    def __getitem__(self, name: str) -> SimulatedDatabase:
        return self.admin

    @property
    def topology_description(self) -> TopologyDescription:
        """Without servers: a start that fails has nothing to name."""
        return TopologyDescription(TOPOLOGY_TYPE.Unknown, {}, None, None, None, TopologySettings())

    async def start_session(self) -> SimulatedSession:
        """Change streams want one."""
        return SimulatedSession()

    async def close(self) -> None:
        """Nothing can be sent any more."""
        self._link.closed = True


class SimulatedSession:
    """Stands for nothing here."""

    async def end_session(self) -> None: ...


class SimulatedDatabase:
    """The one database there is."""

    def __init__(self, server: SimulatedServer, link: Link) -> None:
        self._server = server
        self._link = link

    def get_collection(self, name: str, **pinned: Any) -> SimulatedCollection:
        """All writes wait for the majority, whatever is pinned."""
        return SimulatedCollection(name, self._server, self._link)

    async def command(self, name: str, value: Any = 1, **options: Any) -> Document:
        """`hello`, `buildInfo`, `ping`, and those of change streams."""

        async def answer() -> Document:
            match name:
                case "aggregate":
                    return {"cursor": {"id": self._server.watch(options["pipeline"]), "ns": "jobqueue.$cmd.aggregate"}}
                case "getMore":
                    changes = await self._server.next_changes(value, options["maxTimeMS"] / 1000)
                    return {"cursor": {"id": value, "nextBatch": changes}}
                case "killCursors":
                    for cursor in options["cursors"]:
                        self._server.end_stream(cursor)
                    return {"ok": 1.0}
                case _:
                    return self._server.command(name)

        return await self._link.call(name, answer, undecided=None)


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many documents went."""

    deleted_count: int


class SimulatedCollection:
    """The calls that the adapter makes. `hint` is taken and trusted."""

    def __init__(self, name: str, server: SimulatedServer, link: Link) -> None:
        self.name = name
        self._server = server
        self._link = link
        self.process = link.process
        self._origin = Origin(link.process, link.name)

    def find(
        self,
        query: Query,
        fields: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        skip: int = 0,
        limit: int = 0,
        batch_size: int = 0,
        hint: str | None = None,
    ) -> SimulatedCursor:
        return SimulatedCursor(self, query, fields, order=sort, skip=skip, limit=limit)

    async def fetch(self, query: Query, fields: Mapping[str, Any] | None, **options: Any) -> list[Document]:
        """What a cursor of this query holds."""
        return await self._link.call(
            f"{self.name}.find", lambda: self._server.find(self.name, query, fields, **options), undecided=None
        )

    async def find_one(self, query: Query, fields: Mapping[str, Any] | None = None) -> Document | None:
        found = await self.fetch(query, fields, limit=1)
        return found[0] if found else None

    async def count_documents(self, query: Query, *, limit: int = 0, hint: str | None = None) -> int:
        return await self._link.call(
            f"{self.name}.count", lambda: self._server.count(self.name, query, limit=limit), undecided=None
        )

    async def insert_many(self, documents: Sequence[Document], *, ordered: bool) -> None:
        assert not ordered
        await self._link.call(
            f"{self.name}.insert_many",
            lambda: self._server.insert_many(self._origin, self.name, documents),
            undecided=bulk_undecided,
        )

    async def update_one(
        self, query: Query, update: Query, *, upsert: bool = False, hint: str | None = None
    ) -> Matched:
        return await self._update("update_one", query, update, many=False, upsert=upsert)

    async def update_many(self, query: Query, update: Query, *, hint: str | None = None) -> Matched:
        return await self._update("update_many", query, update, many=True)

    async def _update(self, what: str, query: Query, update: Query, **options: bool) -> Matched:
        return await self._link.call(
            f"{self.name}.{what}",
            lambda: self._server.update(self._origin, self.name, query, update, **options),
            undecided=statement_undecided,
        )

    async def replace_one(self, query: Query, document: Document, *, upsert: bool) -> Matched:
        assert upsert
        assert query == {"_id": document["_id"]}
        return await self._link.call(
            f"{self.name}.replace_one",
            lambda: self._server.replace(self._origin, self.name, document),
            undecided=statement_undecided,
        )

    async def bulk_write(self, writes: Sequence[UpdateOne | UpdateMany], *, ordered: bool) -> Matched:
        assert not ordered
        return await self._link.call(
            f"{self.name}.bulk_write",
            lambda: self._server.bulk_write(self._origin, self.name, writes),
            undecided=bulk_undecided,
        )

    async def find_one_and_update(
        self, query: Query, update: Query, *, return_document: bool, hint: str | None = None
    ) -> Document | None:
        assert return_document
        return await self._link.call(
            f"{self.name}.find_one_and_update",
            lambda: self._server.find_one_and_update(self._origin, self.name, query, update),
            undecided=statement_undecided,
        )

    async def delete_one(self, query: Query, *, hint: str | None = None) -> Deleted:
        return await self._delete("delete_one", query, many=False)

    async def delete_many(self, query: Query, *, hint: str | None = None) -> Deleted:
        return await self._delete("delete_many", query, many=True)

    async def _delete(self, what: str, query: Query, *, many: bool) -> Deleted:
        async def statement() -> Deleted:
            return Deleted(await self._server.delete(self._origin, self.name, query, many=many))

        return await self._link.call(f"{self.name}.{what}", statement, undecided=statement_undecided)

    async def index_information(self) -> Document:
        async def statement() -> Document:
            return self._server.index_information(self.name)

        return await self._link.call(f"{self.name}.index_information", statement, undecided=None)

    async def create_indexes(self, models: Sequence[IndexModel], **options: Any) -> None:
        async def statement() -> None:
            for model in models:
                self._server.create_index(self.name, model.document)

        await self._link.call(f"{self.name}.create_indexes", statement, undecided=statement_undecided)


class SimulatedCursor:
    """What a query finds, fetched when it is asked for."""

    def __init__(
        self, collection: SimulatedCollection, query: Query, fields: Mapping[str, Any] | None, **options: Any
    ) -> None:
        self._collection = collection
        self._query = query
        self._fields = fields
        self._options = options

    async def to_list(self, length: int | None) -> list[Document]:
        return await self._collection.fetch(self._query, self._fields, **self._options)

    async def __aiter__(self) -> AsyncIterator[Document]:
        for document in await self.to_list(None):
            yield document

    async def close(self) -> None:
        """Nothing is held."""


class BlockingClient:
    """A synchronous client, for code that `run_blocking` runs."""

    def __init__(self, server: SimulatedServer, link: Link) -> None:
        self._client = SimulatedClient(server, link)
        self.admin = BlockingDatabase(self._client.admin)

    def __getitem__(self, name: str) -> BlockingDatabase:
        return self.admin

    def close(self) -> None:
        wait_for(self._client.close())


class BlockingDatabase:
    """The same, of a database."""

    def __init__(self, database: SimulatedDatabase) -> None:
        self._database = database

    def get_collection(self, name: str, **pinned: Any) -> BlockingCollection:
        return BlockingCollection(self._database.get_collection(name, **pinned))

    def command(self, name: str, **options: Any) -> Document:
        return wait_for(self._database.command(name, **options))


class BlockingCollection:
    """The same, of a collection: what the lease thread calls."""

    def __init__(self, collection: SimulatedCollection) -> None:
        self._collection = collection
        self.process = collection.process

    def find(self, query: Query, fields: Mapping[str, Any], *, hint: str | None = None) -> list[Document]:
        return wait_for(self._collection.fetch(query, fields))

    def bulk_write(self, writes: Sequence[UpdateOne | UpdateMany], *, ordered: bool) -> Matched:
        return wait_for(self._collection.bulk_write(writes, ordered=ordered))

    def update_many(self, query: Query, update: Query) -> Matched:
        return wait_for(self._collection.update_many(query, update))
