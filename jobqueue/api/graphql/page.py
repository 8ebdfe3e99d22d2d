"""GraphiQL, out of an installed package: the page asks this server for everything, and knows the operations to try.

The page has no script and no style of its own inside it, so the content security policy can forbid every inline
script, every evaluated one and every other origin.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from aiohttp import hdrs, web

PACKAGE = "graphene_django_graphiql_static"
"""Made for Django; what is used of it are its static files."""

VENDOR = ("react.production.min.js", "react-dom.production.min.js", "graphql-ws.min.js", "graphiql.min.js")
VENDOR_STYLE = "graphiql.min.css"
ASSETS = Path(__file__).parent / "assets"
OPERATIONS = ASSETS / "operations.graphql"
OWN = ("start.js", "page.css", OPERATIONS.name)

TYPES = {".js": "text/javascript", ".css": "text/css", ".graphql": "text/plain; charset=utf-8"}
"""Not guessed: a machine may know other types for these, with which browsers would not run them."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src data:",  # its fonts are inside its stylesheet
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

SCRIPTS = "\n".join(f'<script src="graphiql/{name}"></script>' for name in (*VENDOR, "start.js"))
PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jobqueue GraphiQL</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="graphiql/{VENDOR_STYLE}">
<link rel="stylesheet" href="graphiql/page.css">
</head>
<body>
<div id="graphiql"></div>
{SCRIPTS}
</body>
</html>
"""


async def show_graphiql(request: web.Request) -> web.Response:
    """The page itself."""
    return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})


async def show_graphiql_asset(request: web.Request) -> web.StreamResponse:
    """What the page loads, by name; any other name is not found."""
    name = request.match_info["name"]
    if name in OWN:
        return _file(ASSETS / name)
    if name in (*VENDOR, VENDOR_STYLE):
        return _file(_vendor_folder() / name)
    raise web.HTTPNotFound


def _file(path: Path) -> web.FileResponse:
    return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: TYPES[path.suffix]})


@cache
def _vendor_folder() -> Path:
    with as_file(files(PACKAGE) / "static" / PACKAGE) as path:
        return path
