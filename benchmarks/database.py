"""The server that is measured on: JOBQUEUE_BENCH_MONGODB_URI, else the embedded one on a fresh folder, in Rust where
`secantusd-rs` is on the PATH, with the options that the product gives it. Reports name which.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from pymongo import AsyncMongoClient

from jobqueue.data_dir import DataDir
from jobqueue.embedded import EmbeddedServer
from jobqueue.mongo.store import EMBEDDED_SET

URI_VARIABLE = "JOBQUEUE_BENCH_MONGODB_URI"

DURABILITY = {
    "mongodb": "writes with w: majority and j: true, as the repository pins them",
    "rust": "j: true on every write, --sync-on-commit: the journal is synced at each commit",
    "python": "j: true on every write: the journal is synced at each commit",
}


@dataclass(frozen=True, slots=True)
class Database:
    """A running server. `pid` is its process where that is ours, so that its CPU can be told."""

    uri: str
    server: str
    durability: str
    embedded: bool
    pid: int | None

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """The name of a database that nobody has used, dropped afterwards."""
        name = f"bench-{uuid4().hex[:12]}"
        yield name
        async with AsyncMongoClient[dict[str, Any]](self.uri) as client:
            await client.drop_database(name)


@asynccontextmanager
async def provide_database() -> AsyncIterator[Database]:
    """The server of one benchmark, stopped afterwards if it was started here."""
    given = os.environ.get(URI_VARIABLE)
    if given:
        yield await _describe(given, kind=None, pid=None)
        return
    with tempfile.TemporaryDirectory(prefix="jobqueue-bench-") as folder:
        data_dir = DataDir(Path(folder))
        async with EmbeddedServer(Path(folder)) as server:
            record = data_dir.read()
            pid = record.processes[-1].pid if record is not None and record.processes else None
            yield await _describe(server.uri, kind=data_dir.made_by(), pid=pid)


async def _describe(uri: str, *, kind: str | None, pid: int | None) -> Database:
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        hello = await client.admin.command("hello")
        version = (await client.admin.command("buildInfo"))["version"]
    embedded = hello.get("setName") == EMBEDDED_SET
    name = f"SecantusDB, {kind or 'given by URI'}" if embedded else "MongoDB"
    durability = DURABILITY[kind or "mongodb"]
    return Database(uri, f"{name} (says it is {version})", durability, embedded, pid)
