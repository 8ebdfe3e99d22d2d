"""Clients that do not speak HTTP well, or go away: the server outlives them all, and logs no error for any."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from jobqueue.api import bodies

Client = TestClient[web.Request, web.Application]
WEBSOCKET = (
    b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
NEW_EACH_TIME = re.compile(rb"(?<=^X-Request-Id: ).*|(?<=^Date: ).*")
CLOSE = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEAD = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def connection(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def break_off(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, as the kernel does for a client that was killed with data unread."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def begun(client: Client) -> None:
    """Return when the server has a request."""
    await until(client, lambda server: server.requests_count > 0)


async def gone(client: Client) -> None:
    """Return when the server is done with every connection that was closed."""
    await until(client, lambda server: not server.connections)


async def until(client: Client, condition: Callable[[web.Server], bool]) -> None:
    runner = cast(TestServer, client.server).runner
    assert runner is not None
    assert runner.server is not None
    async with asyncio.timeout(30):
        while not condition(runner.server):  # noqa: ASYNC110 (aiohttp sets no event for this)
            await asyncio.sleep(0.005)


NO_HTTP = {
    "noise": bytes(range(256)) * 16,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "a MongoDB message": b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0" + b"\0" * 42,
    "an unknown method": b"FROBNICATE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\n\r\n",
    "a header without a colon": b"GET /jobs HTTP/1.1\r\nHost x\r\n\r\n",
    "a NUL in a header": b"GET /jobs HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "an endless line": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "very many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "a length that is no number": HEAD + b"Content-Length: many\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "an unknown transfer encoding": HEAD + b"Transfer-Encoding: wat\r\n\r\n{}",
    "a broken chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "an endless chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{}",
}


QUOTED = re.compile(r"\bb['\"]|bytearray|xxx|\\x")
"""What shows that an answer has bytes of its request in it."""

UNFINISHED = {
    "nothing": b"",
    "only line ends": b"\r\n" * 1000,
    "half a request line": b"GET /jobs HT",
    "half a header": b"GET /jobs HTTP/1.1\r\nHost",
    "less than announced": HEAD + b'Content-Length: 100\r\n\r\n{"type": "a"',
    "chunks without an end": HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"ty\r\n',
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http_is_refused_and_its_connection_closed(
    client: Client, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="jobqueue.http"):
        async with asyncio.timeout(30), connection(client) as (reader, writer):
            writer.write(sent)
            answer = await reader.read()

    head, body = answer.split(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == b"400"
    assert {b"Server: jobqueue", b"Content-Type: application/problem+json"} <= set(head.splitlines())
    assert b"X-Request-Id" in head
    problem = json.loads(body)
    assert (problem["title"], problem["status"]) == ("Bad Request", 400)
    assert not QUOTED.search(problem["detail"])
    assert {(record.levelname, record.exc_info) for record in caplog.records} <= {("INFO", None)}
    assert (await client.post("/jobs", json={"type": "a"})).status == 201


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED.keys())
async def test_a_client_that_stops_in_the_middle_ends_its_own_connection_and_no_other(
    client: Client, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged:
        async with asyncio.timeout(30), connection(client) as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == b""
        await gone(client)

    assert (logged, caplog.records) == ([], [])
    assert (await client.post("/jobs", json={"type": "a"})).status == 201


async def test_a_body_that_announces_too_much_is_refused_before_it_comes(client: Client) -> None:
    async with asyncio.timeout(30), connection(client) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 99999999\r\n\r\n")

        assert (await reader.readline()).startswith(b"HTTP/1.1 413")


REFUSED_UNSEEN = {
    "too large": (HEAD + b"Content-Length: 99999999\r\n", b"413"),
    "compressed": (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n", b"415"),
    "not declared": (b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n", b"415"),
    "of another site": (HEAD + b"Sec-Fetch-Site: cross-site\r\nContent-Length: 20\r\n", b"403"),
    "for nobody": (b"POST /jobs/a/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n", b"404"),
}


@pytest.mark.parametrize(("head", "status"), REFUSED_UNSEEN.values(), ids=REFUSED_UNSEEN.keys())
async def test_nobody_is_asked_for_a_body_that_is_not_wanted(client: Client, head: bytes, status: bytes) -> None:
    async with asyncio.timeout(30), connection(client) as (reader, writer):
        writer.write(head + b"Expect: 100-continue\r\n\r\n")

        assert (await reader.readline()).split(b" ")[1] == status


async def test_a_body_in_chunks_is_counted_while_it_comes(client: Client) -> None:
    async with asyncio.timeout(30), connection(client) as (reader, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        writer.write((b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 5)

        assert (await reader.readline()).startswith(b"HTTP/1.1 413")


async def test_a_body_that_does_not_come_in_time_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)

    async with asyncio.timeout(30), connection(client) as (reader, writer):
        writer.write(HEAD + b'Content-Length: 100\r\n\r\n{"type"')
        answer = await reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer


async def test_many_clients_that_go_away_in_the_middle_leave_nothing_behind(client: Client) -> None:
    with capture_logs() as logged:
        for _ in range(50):
            async with connection(client) as (_, writer):
                writer.write(HEAD + b'Content-Length: 100\r\n\r\n{"type"')
                await writer.drain()
        await gone(client)
        assert (await client.post("/jobs", json={"type": "a"})).status == 201

    assert logged == []


@pytest.mark.parametrize("path", ["/jobs", "/jobs/bulk", "/enqueue", "/dlq/retry", "/graphql"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_breaks_off_its_upload_is_no_error(
    client: Client, path: str, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged:
        async with connection(client) as (_, writer):
            writer.write(HEAD.replace(b"/jobs", path.encode()) + b'Content-Length: 100\r\n\r\n{"type"')
            await begun(client)
            if reset:
                break_off(writer)
        await gone(client)

    assert (logged, caplog.records) == ([], [])


async def test_a_client_that_is_gone_before_it_is_asked_for_its_body_is_no_error(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        async with connection(client) as (_, writer):
            writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
            break_off(writer)
    await gone(client)

    assert caplog.records == []


async def test_a_client_that_is_gone_before_its_websocket_is_open_is_no_error(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged:
        for _ in range(20):
            async with connection(client) as (_, writer):
                writer.write(WEBSOCKET)
                break_off(writer)
        await gone(client)

    assert (logged, caplog.records) == ([], [])


async def test_requests_that_come_all_at_once_are_answered_in_their_order(client: Client) -> None:
    def post(body: bytes) -> bytes:
        return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body

    last = b"GET /jobs/c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async with asyncio.timeout(30), connection(client) as (reader, writer):
        writer.write(post(b'{"id": "b"}') + post(b'{"id"') + post(b'{"id": "c"}') + last)
        answer = await reader.read()

    statuses = [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [201, 400, 201, 200]


ASKED = {
    "a job": (b"POST /jobs", b'{"id": "whole"}', b"201 Created"),
    "a problem": (b"POST /jobs", b'{"id"', b"400 Bad Request"),
    "a page": (b"GET /jobs", b"", b"200 OK"),
    "none by its method": (b"PUT /jobs", b"{}", b"405 Method Not Allowed"),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_an_answer_is_the_same_on_a_connection_that_is_kept_and_on_one_that_is_not(
    client: Client, asked: str
) -> None:
    what, body, status = ASKED[asked]

    async def answer(version: bytes, *, kept: bool) -> tuple[set[bytes], int]:
        """The lines of its head, of those that are new each time only the name, and the length of its body."""
        request = b"%s HTTP/%s\r\nHost: x\r\nContent-Length: %d\r\n" % (what, version, len(body))
        request += b"Content-Type: application/json\r\nConnection: %s\r\n\r\n" % (b"keep-alive" if kept else b"close")
        async with asyncio.timeout(30), connection(client) as (reader, writer):
            writer.write(request + body + (CLOSE if kept else b""))
            first, *others = re.split(rb"HTTP/1.[01] (?=\d{3} )", await reader.read())[1:]
        assert [other[:3] for other in others] == [b"200"] * kept
        await client.delete("/jobs/whole")
        head, _, rest = first.partition(b"\r\n\r\n")
        return {NEW_EACH_TIME.sub(b"", line) for line in head.splitlines()}, len(rest)

    lines, length = await answer(b"1.1", kept=True)

    assert {status, b"Content-Length: %d" % length, b"Server: jobqueue"} <= lines
    assert await answer(b"1.1", kept=False) == (lines | {b"Connection: close"}, length)
    assert await answer(b"1.0", kept=True) == (lines | {b"Connection: keep-alive"}, length)
    assert await answer(b"1.0", kept=False) == (lines, length)


async def test_the_path_may_be_a_whole_url_as_proxies_send_it(client: Client) -> None:
    async with asyncio.timeout(30), connection(client) as (reader, writer):
        writer.write(b"GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200")
