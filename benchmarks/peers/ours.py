"""This project by the same yardstick: as a library with one worker process, and over HTTP with one more process.

The worker process is `jobqueue worker` with the defaults, but for as many slots as the asyncio peers have, and for the
length of the line before them. The final tries the other driver too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from benchmarks.peers.peer import Payload, Peer, Way, concurrently, in_bulk

QUEUE_SIZE = 5_000
"""A look at the embedded server costs as much whatever it fetches; with the default of 1,000 there are more of them."""

WAITING = ["pending", "processing", "scheduled"]


class Library(Peer):
    """Enqueued by the service of this process, without HTTP; run by one `jobqueue worker`."""

    environment, packages, backend = "", ("jobqueue", "motor", "pymongo"), "mongodb"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "Motor": {"JOBQUEUE_DRIVER": "motor"},
        "PyMongo": {"JOBQUEUE_DRIVER": "pymongo"},
    }

    @property
    def _job(self) -> str:
        return "answer" if self.with_result else "noop"

    async def open(self) -> None:
        from benchmarks.in_process import NoOps, running_engine
        from jobqueue.settings import Settings

        uri, _, database = self.url.rpartition("#")
        settings = Settings.model_validate({"mongodb_uri": uri, "database": database, "log_level": "WARNING"})
        self._stack = AsyncExitStack()
        starting = running_engine(settings, NoOps(0).registry, workers=False)
        self.service = (await self._stack.enter_async_context(starting)).service

    async def close(self) -> None:
        await self._stack.aclose()

    async def one(self, payload: Payload) -> None:
        from jobqueue.service import NewJob

        await self.service.enqueue(NewJob(type=self._job, payload=payload))

    def ways(self) -> Mapping[str, Way]:
        ways = {f"enqueue_many of {size}": in_bulk(self._many, size=size) for size in (100, 1000)}
        return {**ways, **super().ways()}

    async def _many(self, payloads: Sequence[Payload]) -> None:
        from jobqueue.service import NewJob

        await self.service.enqueue_many([NewJob(type=self._job, payload=payload) for payload in payloads])

    async def unfinished(self) -> int | None:
        from pymongo import AsyncMongoClient

        uri, _, database = self.url.rpartition("#")
        async with AsyncMongoClient[dict[str, Any]](uri) as client:
            found: int = await client[database].jobs.count_documents({"status": {"$in": WAITING}})
        return found

    def work(self) -> None:
        from benchmarks.processes import ROOT, TASKS

        uri, _, database = self.url.rpartition("#")
        settings: dict[str, object] = {"MONGODB_URI": uri, "DATABASE": database, "LOG_LEVEL": "WARNING"}
        settings |= {"WORKERS": self.concurrency, "QUEUE_SIZE": QUEUE_SIZE}
        os.environ.update({f"JOBQUEUE_{name}": str(value) for name, value in settings.items()})
        program = [sys.executable, str(ROOT / "cmd" / "jobqueue"), "worker", "--tasks", TASKS]
        os.execv(program[0], program)


class OverHttp(Library):
    """Enqueued by POST to one `jobqueue api`; run by one `jobqueue worker`."""

    async def open(self) -> None:
        import aiohttp

        from benchmarks.database import Database
        from benchmarks.processes import jobqueue_process

        uri, _, database = self.url.rpartition("#")
        server = Database(uri, server="", durability="", embedded=False, pid=None)
        self._stack = AsyncExitStack()
        api = await self._stack.enter_async_context(jobqueue_process("api", server, database))
        connector = aiohttp.TCPConnector(limit=0)
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession(api.url, connector=connector))

    async def one(self, payload: Payload) -> None:
        async with self.http.post("/jobs", json={"type": self._job, "payload": payload}) as answer:
            answer.raise_for_status()
            await answer.read()

    def ways(self) -> Mapping[str, Way]:
        bulk = {f"POST /jobs/bulk of {size}": in_bulk(self._many, size=size) for size in (100, 1000)}
        return {**bulk, "64 connections": concurrently(self.one, size=64)}

    async def _many(self, payloads: Sequence[Payload]) -> None:
        jobs = [{"type": self._job, "payload": payload} for payload in payloads]
        async with self.http.post("/jobs/bulk", json=jobs) as answer:
            answer.raise_for_status()
            refused = (await answer.json())["rejected"]
        if refused:
            raise RuntimeError(f"{refused} jobs were refused")
