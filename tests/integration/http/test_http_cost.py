"""What a job that is posted costs this process, in steps of its own code. Clocks are noisy; this fails when somebody
adds work to every request, or to every item of many.

A step is a function that is called or resumed, or one in C that such a function calls; those of the web server and of
asyncio are not counted. What the kernel and the driver do is not here: requests are handed to aiohttp's protocol, 32 of
them at a time, and a database stands behind that acknowledges everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from counted_calls import telling_of_calls

from jobqueue.admission import AdmissionLimits
from jobqueue.api.answers import WholeAnswer
from jobqueue.api.routes import build_api
from jobqueue.api.serving import ApiRunner
from jobqueue.clock import Identifiers, ServerClock
from jobqueue.dispatch import SignallingDispatcher
from jobqueue.following import Followers
from jobqueue.mongo import MongoJobRepository
from jobqueue.mongo.store import Client
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.repository import Features
from jobqueue.service import JobService

NOT_COUNTED = tuple(str(Path(each).parent) for each in (aiohttp.__file__, asyncio.__file__, __file__))
CONNECTIONS = 32
ROUNDS = 10
ITEMS = 400

MOST_STEPS = 124
"""For each request; 122 when this was written, with Python 3.11, and 270 long before."""

MOST_STEPS_OF_AN_ITEM = 69
"""For each; 67 when this was written, and 127 long before."""

LEAST_STEPS_SAVED = 12
"""16 of 137 when this was written, and the dearer ones."""

BODY = b'{"type": "noop", "payload": {"n": 123456, "text": "a payload of some fifty characters, as many have"}}'


def post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


ONE = post("/jobs", BODY)
MANY = post("/jobs/bulk", b"[" + b",".join([BODY] * ITEMS) + b"]")


class Agreeable:
    """A database, or a collection of it, that acknowledges everything and keeps nothing."""

    def __getitem__(self, name: str) -> Agreeable:
        return self

    def get_collection(self, name: str, **options: object) -> Agreeable:
        return self

    async def insert_many(self, documents: Sequence[object], **options: object) -> None:
        await asyncio.sleep(0)

    async def bulk_write(self, *statements: object, **options: object) -> None:
        await asyncio.sleep(0)

    async def count_documents(self, *query: object, **options: object) -> int:
        return 0

    def close(self) -> None: ...


class Connection(asyncio.Transport):
    """What aiohttp writes its answers to."""

    def __init__(self, protocol: RequestHandler) -> None:
        super().__init__()
        self._protocol = protocol
        self._answered = asyncio.get_running_loop().create_future()
        protocol.connection_made(self)

    async def send(self, request: bytes) -> bytes:
        """The beginning of the answer to one request."""
        self._answered = asyncio.get_running_loop().create_future()
        self._protocol.data_received(request)
        return bytes(await self._answered)[:12]

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._answered.done():
            self._answered.set_result(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def resume_reading(self) -> None: ...


class Steps:
    """Counts steps, but for those of code in these folders."""

    def __init__(self, *, but_for: tuple[str, ...] = NOT_COUNTED) -> None:
        self.count = 0
        self._not_counted = but_for

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call") and not frame.f_code.co_filename.startswith(self._not_counted):
            self.count += 1


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[], Connection]]:
    clock, metrics = ServerClock(monotonic=lambda: 0.0), PrometheusMetrics()
    features = Features(name="agreeable", version="1")
    jobs = MongoJobRepository(cast(Client, Agreeable()), "here", clock=clock, features=features, observer=metrics)
    service = JobService(
        jobs,
        SignallingDispatcher(jobs, clock),
        clock=clock,
        identifiers=Identifiers(),
        followers=Followers(jobs),
        max_retries_of=lambda job_type: 3,
        limits=AdmissionLimits(pending=1_000_000),
        observer=metrics,
    )
    runner = ApiRunner(build_api(service, clock=clock, metrics=metrics), access_log=None)
    await runner.setup()
    server = runner.server
    assert server is not None
    yield lambda: Connection(server())
    await runner.cleanup()
    await jobs.aclose()


async def test_a_request_costs_no_more_steps_than_it_did(connect: Callable[[], Connection]) -> None:
    connections = [connect() for _ in range(CONNECTIONS)]
    await asyncio.gather(*(connection.send(ONE) for connection in connections))  # what is made once

    steps = Steps()
    with telling_of_calls(steps.note):
        for _ in range(ROUNDS):
            answers = await asyncio.gather(*(connection.send(ONE) for connection in connections))

    assert set(answers) == {b"HTTP/1.1 201"}
    assert steps.count / (ROUNDS * CONNECTIONS) <= MOST_STEPS


async def test_an_item_of_many_costs_no_more_steps_than_it_did(connect: Callable[[], Connection]) -> None:
    connection = connect()
    await connection.send(MANY)

    steps = Steps()
    with telling_of_calls(steps.note):
        answer = await connection.send(MANY)

    assert answer == b"HTTP/1.1 200"
    assert steps.count / ITEMS <= MOST_STEPS_OF_AN_ITEM


async def test_an_answer_costs_fewer_steps_than_aiohttps_own() -> None:
    async def cost(kind: type[web.Response]) -> float:
        async def handle(request: web.BaseRequest) -> web.Response:
            return kind(body=BODY, status=201, content_type="application/json", headers={"Location": "/jobs/1"})

        connection = Connection(web.Server(handle)())
        await connection.send(ONE)
        steps = Steps(but_for=())
        with telling_of_calls(steps.note):
            for _ in range(ROUNDS):
                assert await connection.send(ONE) == b"HTTP/1.1 201"
        return steps.count / ROUNDS

    assert await cost(WholeAnswer) <= await cost(web.Response) - LEAST_STEPS_SAVED
