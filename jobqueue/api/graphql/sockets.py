"""Operations over a websocket: GET /graphql with the protocol graphql-transport-ws, for subscriptions above all.

What is larger than a body may be, or no message of the protocol, closes the socket with 4400 or 1009. All sockets
are closed with 1001 before the service stops listening.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from datetime import timedelta
from json import JSONDecodeError
from typing import Any

from aiohttp import WSCloseCode, hdrs, web
from strawberry.aiohttp.views import GraphQLView
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import SubscribeMessage

from jobqueue.api.graphql.context import Context
from jobqueue.api.graphql.errors import error_of
from jobqueue.api.graphql.requests import GraphQLBody, encode
from jobqueue.api.graphql.schema import SCHEMA
from jobqueue.api.handlers import API
from jobqueue.errors import InvalidJob
from jobqueue.values import decode_json

INIT_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0
CLOSE_SECONDS = 2.0
MAX_OPERATIONS = 100
"""At the same time, on one socket."""

ABOUT_AN_OPERATION = frozenset({"subscribe", "complete"})


class Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """The protocol, told about what its messages may be."""

    async def handle_message(self, message: Any) -> None:
        if not _is_message(message):
            await self.handle_invalid_message("no message of graphql-transport-ws")
        else:
            await super().handle_message(message)

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):  # clients go away; only the rest is for the error log
            await super().handle_task_exception(error)

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        try:
            GraphQLBody.read(message["payload"])
        except InvalidJob as error:
            await self.send_message({"id": message["id"], "type": "error", "payload": [error_of(error).formatted]})
        else:
            await super().handle_subscribe(message)


class Sockets(GraphQLView[Context, None]):
    """The websockets of one application."""

    graphql_transport_ws_handler_class = Handler

    def __init__(self) -> None:
        super().__init__(
            SCHEMA,
            graphql_ide=None,
            allow_queries_via_get=False,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=INIT_SECONDS),
            max_subscriptions_per_connection=MAX_OPERATIONS,
        )
        self._open: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket until it is closed. Anything else is refused: there are no queries over GET."""
        if not self.is_websocket_request(request):
            raise web.HTTPMethodNotAllowed(request.method, [hdrs.METH_POST])
        return await self.run(request)

    async def close(self, app: web.Application) -> None:
        """Close all sockets, for the end of the application. Who does not read is not waited for: its socket is broken
        off."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(each.close(code=WSCloseCode.GOING_AWAY) for each in list(self._open)))

    async def create_websocket_response(self, request: web.Request, subprotocol: str | None) -> web.WebSocketResponse:
        response = web.WebSocketResponse(
            protocols=[subprotocol] if subprotocol else [],
            timeout=CLOSE_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            max_msg_size=request.app[API].limits.max_payload_bytes,
            compress=False,
        )
        response.headers[hdrs.SERVER] = "jobqueue"  # the middleware is too late for this one
        await response.prepare(request)
        self._open.add(response)
        return response

    async def get_context(self, request: web.Request, response: web.Response | web.WebSocketResponse) -> Context:
        return Context(request.app[API])

    def decode_json(self, data: str | bytes) -> object:
        try:
            return decode_json(data.encode() if isinstance(data, str) else data)
        except InvalidJob as error:
            raise JSONDecodeError(str(error), "", 0) from None

    def encode_json(self, data: object) -> str:
        return encode(data).decode()


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return False
    return message["type"] not in ABOUT_AN_OPERATION or isinstance(message.get("id"), str)
