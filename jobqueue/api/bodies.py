"""From a request to the bytes of its body: declared as JSON, within its size, sent in time.

The size is counted while the body arrives, so a client that announces none, or a wrong one, cannot fill the
memory. Raises aiohttp's own 408, 413 and 415, with a text that says what to do; `ClientConnectionResetError` where the
client is gone, and `ShuttingDown` where there is no time left for it.
"""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

from aiohttp import ClientConnectionResetError, HttpVersion11, hdrs, web

from jobqueue.api.answers import JSON
from jobqueue.errors import ShuttingDown
from jobqueue.loop import is_being_cancelled

BODY_SECONDS = 60.0
"""A body that takes longer than this to arrive holds its connection no more."""

JSON_TYPE = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json")
NDJSON_TYPE = "application/x-ndjson"
B = TypeVar("B", bytes, bytearray)
UTF8_NAMES = frozenset({None, "utf-8", "utf8"})


async def read_json_body(request: web.Request, *, limit: int) -> bytes:
    """The body of a request that says it is JSON, at most `limit` bytes."""
    headers, content = request.headers, request.content
    if headers.get(hdrs.CONTENT_TYPE) == JSON and hdrs.CONTENT_ENCODING not in headers and content.is_eof():
        return _bounded(content.read_nowait(), limit)  # as from nearly everybody: small, and come with the head
    if not is_json(request):
        raise web.HTTPUnsupportedMediaType(text="send JSON, and say so: Content-Type: application/json")
    return await read_body(request, limit=limit)


def is_json(request: web.Request) -> bool:
    """Whether the body is declared as JSON."""
    return _declared_type(request) == JSON or JSON_TYPE.fullmatch(request.content_type) is not None


async def read_body(request: web.Request, *, limit: int) -> bytes:
    """The body, in UTF-8 as far as its headers tell, at most `limit` bytes."""
    _refuse_encodings(request)
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    if request.content.is_eof():
        # It came with the head, as small ones do: there is nothing to wait for, and no timer to be set.
        return _bounded(request.content.read_nowait(), limit)
    await _ask_for_it(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _collect(request, limit)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
    except OSError as error:
        # It broke off. What says so where an answer is written says it here too.
        raise ClientConnectionResetError("the client is gone") from error
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        # aiohttp ends what does not arrive while it stops by putting this into the body.
        raise ShuttingDown from None


async def _ask_for_it(request: web.Request) -> None:
    """Tell a client to send its body that waits for this; other expectations are nothing to fail for."""
    if request.version == HttpVersion11 and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # As aiohttp's own handler does: its error handling takes this count for that of the answer.
        request.writer.output_size = 0


def too_large(limit: int) -> web.HTTPException:
    """The error for something larger than `limit` bytes."""
    return web.HTTPRequestEntityTooLarge(limit, 0, text=f"at most {limit} bytes are taken")


async def _collect(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        _bounded(body, limit)
    return bytes(body)


def _bounded(body: B, limit: int) -> B:
    if len(body) > limit:
        raise too_large(limit)
    return body


def _declared_type(request: web.Request) -> str | None:
    return request.headers.get(hdrs.CONTENT_TYPE)


def _refuse_encodings(request: web.Request) -> None:
    # Most declare plain JSON, and no charset can be in that: there is nothing to be taken apart.
    charset = request.charset if _declared_type(request) != JSON else None
    if (charset.lower() if charset else None) not in UTF8_NAMES:
        raise web.HTTPUnsupportedMediaType(text="JSON is UTF-8; leave charset out, or say charset=utf-8")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="send the body as it is, without Content-Encoding")
