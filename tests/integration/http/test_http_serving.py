"""The table before aiohttp's router makes no difference but in time, and a server stops whatever its clients do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from jobqueue.api.graphql import sockets
from jobqueue.api.routes import build_api
from jobqueue.api.serving import SHORTCUTS, ApiRunner
from jobqueue.clock import ServerClock
from jobqueue.service import JobService, NewJob

Client = TestClient[web.Request, web.Application]

NOT_THE_SAME = {"x-request-id", "date", "location"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/", {}, None),
        ("GET", "/jobs", {}, None),
        ("GET", "/jobs?", {}, None),
        ("GET", "/jobs?limit=0", {}, None),
        ("GET", "/status", {}, None),
        ("GET", "/jobs/bulk", {}, None),
        ("GET", "/%6aobs", {}, None),
        ("GET", "/nothing", {}, None),
        ("GET", "/openapi.json", {}, None),
        ("HEAD", "/livez", {}, None),
        ("PUT", "/jobs", {}, None),
        ("OPTIONS", "/jobs", {}, None),
        ("POST", "/jobs", {}, b"{}"),
        ("POST", "/jobs", JSON, b"{"),
        ("POST", "/jobs", JSON | {"Sec-Fetch-Site": "cross-site"}, b"{}"),
        ("POST", "/jobs", JSON | {"Expect": "100-continue"}, b"{}"),
        ("POST", "/dlq/retry", JSON, b"{}"),
        ("POST", "/graphql", JSON, b'{"query": "{__typename}"}'),
    ],
)
async def test_an_answer_is_the_same_with_the_table_and_without(
    client: Client, service: JobService, method: str, path: str, headers: Mapping[str, str], body: bytes | None
) -> None:
    async with TestClient(TestServer(build_api(service, clock=ServerClock()))) as plain:
        answers = [await each.request(method, path, headers=headers, data=body) for each in (client, plain)]
        by_table, by_router = [
            (
                answer.status,
                {k: v for k, v in answer.headers.items() if k.lower() not in NOT_THE_SAME},
                await answer.read(),
            )
            for answer in answers
        ]

    assert by_table == by_router


@asynccontextmanager
async def stopped(service: JobService) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that reads little to a server that is stopped when the block is left."""
    runner = ApiRunner(build_api(service, clock=ServerClock()), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.connect(runner.addresses[0])
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    try:
        yield reader, writer
    finally:
        async with asyncio.timeout(30):
            await runner.cleanup()
        writer.close()


async def test_a_body_that_is_on_its_way_when_the_server_stops_is_refused_in_time(service: JobService) -> None:
    async with stopped(service) as (reader, writer):
        writer.write(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Expect: 100-continue\r\nContent-Length: 50\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Retry-After" in answer


async def test_a_websocket_whose_client_does_not_read_does_not_keep_the_server_from_stopping(
    service: JobService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.1)
    await service.enqueue_many([NewJob(type="a", payload="x" * 60_000) for _ in range(60)])

    async with stopped(service) as (reader, writer):
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )
        shaken = await reader.readuntil(b"\r\n\r\n")
        assert shaken.startswith(b"HTTP/1.1 101")
        assert b"Server: jobqueue\r\n" in shaken
        send(writer, {"type": "connection_init"})
        await reader.readuntil(b"connection_ack")
        for number in range(3):
            send(writer, {"id": str(number), "type": "subscribe", "payload": {"query": "{Jobs{payload}}"}})
        await reader.readuntil(b'"next"')

    assert caplog.records == []


def send(writer: asyncio.StreamWriter, message: object) -> None:
    """One short message of a websocket's client, masked with zeros."""
    text = json.dumps(message).encode()
    assert len(text) < 126
    writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)


WHOLE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", WHOLE[:-2], WHOLE + WHOLE[:-2]], ids=["nothing", "half", "one and a half"])
async def test_a_client_that_does_not_send_its_headers_to_their_end_is_left(service: JobService, sent: bytes) -> None:
    """However little it sends, and however long it goes on with that."""
    runner = ApiRunner(build_api(service, clock=ServerClock()), keepalive_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(sent)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.01)
            writer.write(b"X: y\r\n" if sent else b"\r\n")

    async with asyncio.timeout(30):
        going_on = asyncio.create_task(go_on())
        with suppress(ConnectionResetError):
            assert b" 400 " not in await reader.read()  # as for too many headers, if it came to that
        going_on.cancel()
    await runner.cleanup()
    writer.close()


async def test_every_route_without_a_parameter_is_in_the_table(client: Client) -> None:
    app = client.app
    assert app is not None

    paths = {path for _, path in app[SHORTCUTS]}

    assert {"/jobs", "/jobs/bulk", "/livez", "/metrics"} < paths
    assert not any("{" in path for path in paths)
