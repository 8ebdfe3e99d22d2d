"""What aiohttp itself does: the same bodies parsed and validated, the same bytes answered, nothing done.

    python -m benchmarks.bare_http PORT URI DATABASE ANSWER_FILE

`POST /jobs` validates and answers; `POST /stored` also inserts one document, by itself; `GET /jobs/{id}` answers after
one find by id; `GET /nothing` only answers.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import uvloop
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobqueue.clock import ServerClock
from jobqueue.driver import connect
from jobqueue.mongo.store import Store
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


def build(uri: str, database_name: str, answer: bytes) -> web.Application:
    """The application. Its answers are those of a job that the service made."""
    settings = Settings(database=database_name)
    store = Store(connect(settings, uri), database_name)

    def created() -> web.Response:
        headers = {"Location": "/jobs/000000000000000000000000"}
        return web.Response(body=answer, status=201, content_type="application/json", headers=headers)

    async def create(request: web.Request) -> web.Response:
        BareJob.model_validate_json(await request.read())
        return created()

    async def create_stored(request: web.Request) -> web.Response:
        job = BareJob.model_validate_json(await request.read())
        now = ServerClock().now()
        await store.jobs.insert_one({"type": job.type, "payload": job.payload, "status": "bare", "createdAt": now})
        return created()

    async def show(request: web.Request) -> web.Response:
        await store.jobs.find_one({"_id": request.match_info["id"]})
        return web.Response(body=answer, content_type="application/json")

    async def nothing(request: web.Request) -> web.Response:
        return web.Response(body=answer, content_type="application/json")

    application = web.Application()
    application.add_routes(
        [
            web.post("/jobs", create),
            web.post("/stored", create_stored),
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
