"""The documentation page: Swagger UI out of an installed package, nothing from anywhere else.

The page has no script of its own inside it, so the content security policy can forbid all inline scripts and
every other origin.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import swagger_ui_bundle
from aiohttp import web

ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
INITIALIZER = "initializer.js"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # its icons are data URLs
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jobqueue API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/initializer.js"></script>
</body>
</html>
"""

SCRIPT = """"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""


async def show_page(request: web.Request) -> web.Response:
    """The page itself."""
    return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})


async def show_asset(request: web.Request) -> web.StreamResponse:
    """What the page loads, by name; any other name is not found."""
    name = request.match_info["name"]
    if name == INITIALIZER:
        return web.Response(text=SCRIPT, content_type="text/javascript")
    if name not in ASSETS:
        raise web.HTTPNotFound
    return web.FileResponse(assets_folder() / name)


@cache
def assets_folder() -> Path:
    """Where the package keeps the newest Swagger UI that it brings."""
    vendor = files(swagger_ui_bundle) / "vendor"
    newest = max((folder for folder in vendor.iterdir() if folder.is_dir()), key=lambda folder: _version(folder.name))
    with as_file(newest) as path:
        return path


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))
