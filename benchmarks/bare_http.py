"""What aiohttp itself does: the same bodies parsed and validated, the same bytes answered, nothing done.

    python -m benchmarks.bare_http PORT URI DATABASE ANSWER_FILE

`POST /jobs` validates and answers; `POST /stored` also inserts one document, by itself, and `POST /grouped` together
with those that come while the last ones are written; `POST /many` takes an array and inserts it as one;
`GET /jobs/{id}` answers after one find by id; `GET /nothing` only answers.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import uvloop
from aiohttp import web
from bson import Int64, ObjectId
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from benchmarks.workload import Document
from jobqueue.clock import ServerClock
from jobqueue.driver import connect
from jobqueue.mongo.store import Collection, Store
from jobqueue.process import calm_the_garbage_collector
from jobqueue.settings import Settings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class BareJob(BaseModel):
    """The fields of a new job with their types and bounds, in one pass of the parser."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)

    type: Name = "default"
    payload: Any = None
    id: Name | int | None = None
    queue: Name = "default"
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    max_retries: Annotated[int, Field(ge=1, le=100)] | None = None
    run_at: datetime | None = None
    delay_seconds: Annotated[float, Field(ge=0)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=20)] = []

    def document(self, now: datetime) -> Document:
        """With the fields of a job that the service stores, and no more work than that."""
        unique = ObjectId()
        return {
            "_id": str(unique),
            "payload": self.payload,
            "type": self.type,
            "queue": self.queue,
            "priority": self.priority,
            "status": "pending",
            "retryCount": 0,
            "maxRetries": 3,
            "runAt": now,
            "createdAt": now,
            "updatedAt": now,
            "seq": Int64(now.timestamp() * 1e6),
            "insertId": str(unique),
        }


BARE_JOBS = TypeAdapter(list[BareJob])


class GroupedInserts:
    """The least that stores many bodies together: one insert at a time, of all that came since the last one."""

    def __init__(self, jobs: Collection) -> None:
        self._jobs = jobs
        self._waiting: list[tuple[Document, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def insert(self, document: Document) -> None:
        """Return when it is stored. After an error nobody is answered any more, and the benchmark fails."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((document, stored))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._jobs.insert_many([document for document, _ in batch], ordered=False)
            for _, stored in batch:
                stored.set_result(None)
        self._writing = None


def build(uri: str, database_name: str, answer: bytes) -> web.Application:
    """The application. Its answers are those of a job that the service made."""
    settings = Settings(database=database_name)
    store = Store(connect(settings, uri), database_name)
    clock, grouped = ServerClock(), GroupedInserts(store.jobs)

    def created() -> web.Response:
        headers = {"Location": "/jobs/000000000000000000000000"}
        return web.Response(body=answer, status=201, content_type="application/json", headers=headers)

    async def create(request: web.Request) -> web.Response:
        BareJob.model_validate_json(await request.read())
        return created()

    async def create_stored(request: web.Request) -> web.Response:
        job = BareJob.model_validate_json(await request.read())
        await store.jobs.insert_one(job.document(clock.now()))
        return created()

    async def create_grouped(request: web.Request) -> web.Response:
        job = BareJob.model_validate_json(await request.read())
        await grouped.insert(job.document(clock.now()))
        return created()

    async def create_many(request: web.Request) -> web.Response:
        jobs = BARE_JOBS.validate_json(await request.read())
        now = clock.now()
        await store.jobs.insert_many([job.document(now) for job in jobs], ordered=False)
        return created()

    async def show(request: web.Request) -> web.Response:
        await store.jobs.find_one({"_id": request.match_info["id"]})
        return web.Response(body=answer, content_type="application/json")

    async def nothing(request: web.Request) -> web.Response:
        return web.Response(body=answer, content_type="application/json")

    application = web.Application(client_max_size=16 << 20)
    application.add_routes(
        [
            web.post("/jobs", create),
            web.post("/stored", create_stored),
            web.post("/grouped", create_grouped),
            web.post("/many", create_many),
            web.get("/jobs/{id}", show),
            web.get("/nothing", nothing),
        ]
    )
    return application


def main(port: str, uri: str, database_name: str, answer_file: str) -> None:
    """Serve until SIGTERM."""

    answer = Path(answer_file).read_bytes()

    async def application() -> web.Application:  # the driver wants a running loop
        return build(uri, database_name, answer)

    calm_the_garbage_collector()  # as the product does
    loop = uvloop.new_event_loop()
    web.run_app(application(), host="127.0.0.1", port=int(port), access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
