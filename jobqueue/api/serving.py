"""How the API is served: aiohttp's runner, with a table of what most requests ask for.

An application is complete without it. aiohttp's router, its match of a path and the wrapping of middlewares are a good
part of a request; a route without a parameter in its path, asked for without a query, is found here by one look, and
answered through the same `answer_all`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from aiohttp import hdrs, web

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHORTCUTS = web.AppKey("shortcuts", Mapping[tuple[str, str], Respond])
"""Where an application keeps its table: from method and path, as they stand in the request, to what answers."""


class ApiRunner(web.AppRunner):
    """Serves an application that has shortcuts."""

    async def setup(self) -> None:
        """Make the server. Connections that it takes from now on go by the table first."""
        await super().setup()
        assert self.server is not None
        # What it handles are requests of its application.
        application = cast(Respond, self.server.request_handler)
        self.server.request_handler = cast(Any, _by_table(self.app[SHORTCUTS], application))


def _by_table(shortcuts: Mapping[tuple[str, str], Respond], otherwise: Respond) -> Respond:
    def respond(request: web.Request) -> Awaitable[web.StreamResponse]:
        # Who expects something is told before the body is read, which is up to the application.
        if hdrs.EXPECT in request.headers:
            return otherwise(request)
        return shortcuts.get((request.method, request.raw_path), otherwise)(request)

    return respond
