"""How the API is served: aiohttp's runner, with a table of what most requests ask for, and with problem documents for
what is no request at all.

An application is complete without it. aiohttp's router, its match of a path and the wrapping of middlewares are a good
part of a request; a route without a parameter in its path, asked for without a query, is found here by one look, and
answered through the same `answer_all`. What cannot be read as HTTP never comes that far, and aiohttp's own answer to it
would quote its bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, HttpProcessingError, InvalidURLError, LineTooLong

from jobqueue.forks import withhold_descriptors

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refuse = Callable[[Exception, str], web.Response]

SHORTCUTS = web.AppKey("shortcuts", Mapping[tuple[str, str], Respond])
"""Where an application keeps its table: from method and path, as they stand in the request, to what answers."""

REFUSE: web.AppKey[Refuse] = web.AppKey("refuse")
"""Where it keeps what answers when its middleware cannot: by an exception, and the path."""


class Connection(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, *, refuse: Refuse, **options: Any) -> None:
        super().__init__(server, **options)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse as everything else is refused."""
        response = self._refuse(_refusal(exc), request.rel_url.raw_path)
        super().handle_error(request, status, exc, message)  # logs it, and raises where an answer has begun
        return response


class ApiServer(web.Server):
    """Makes connections."""

    def __init__(self, refuse: Refuse, respond: Respond, **options: Any) -> None:
        super().__init__(cast(Any, respond), **options)
        self._refuse = refuse

    def __call__(self) -> Connection:
        return Connection(self, refuse=self._refuse, loop=self._loop, **self._kwargs)


class ApiRunner(web.AppRunner):
    """Serves an application that has shortcuts. No fork of the process takes part."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        withhold_descriptors(self)

    def descriptors(self) -> Iterator[int]:
        """Those of the sockets that listen, and of all connections."""
        for server in (site._server for site in self.sites if site._server is not None):
            for listening in cast(asyncio.Server, server).sockets:
                yield listening.fileno()
        for connection in self.server.connections if self.server is not None else ():
            if connection.transport is not None:
                yield connection.transport.get_extra_info("socket").fileno()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        # What it handles are requests of its application.
        respond = _by_table(self.app[SHORTCUTS], cast(Respond, made.request_handler))
        return ApiServer(
            self.app[REFUSE],
            respond,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )


def _by_table(shortcuts: Mapping[tuple[str, str], Respond], otherwise: Respond) -> Respond:
    def respond(request: web.Request) -> Awaitable[web.StreamResponse]:
        return shortcuts.get((request.method, request.raw_path), otherwise)(request)

    return respond


def _refusal(error: BaseException | None) -> Exception:
    if isinstance(error, HttpProcessingError):
        return web.HTTPBadRequest(text=_what_is_wrong(error))
    return error if isinstance(error, Exception) else TimeoutError()  # for which alone aiohttp gives no error


def _what_is_wrong(error: HttpProcessingError) -> str:
    """In words that are not the client's: an error of the parser may quote what it stumbled over."""
    match error:
        case LineTooLong():
            return f"the URL, or a header, is longer than {error.args[1]} bytes"
        case BadHttpMethod():
            return "it does not begin with a method that HTTP has"
        case InvalidURLError():
            return "the URL cannot be read"
        case _ if type(error) is BadHttpMessage:
            # The quotation comes in a paragraph of its own.
            return error.message.partition("\n")[0].rstrip(".:")
        case _:
            return "it is no HTTP/1.1"
