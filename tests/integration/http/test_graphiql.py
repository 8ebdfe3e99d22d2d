"""The page GraphiQL: everything that it loads comes from here, and its policy allows nothing else."""

from __future__ import annotations

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from graphql import parse, validate
from yarl import URL

from jobqueue.api.graphql.schema import SCHEMA

Client = TestClient[web.Request, web.Application]


async def test_the_page_loads_only_what_this_server_has_and_nothing_is_inline(client: Client) -> None:
    page = await client.get("/graphiql")

    html = await page.text()
    loaded = [path for path in re.findall(r'(?:src|href)="([^"]+)"', html) if path != "data:,"]
    assert page.content_type == "text/html"
    assert len(loaded) == 7
    for path in loaded:
        asset = await client.get(f"/{path}")
        assert asset.status == 200, path
        assert asset.content_type in ("text/javascript", "text/css")
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
    assert "//" not in html
    assert re.findall(r"<script(?![^>]*src=)|<style|style=", html) == []


async def test_the_policy_allows_this_server_only(client: Client) -> None:
    policy = (await client.get("/graphiql")).headers["Content-Security-Policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_the_scripts_and_styles_load_nothing_from_elsewhere(client: Client) -> None:
    ours = await (await client.get("/graphiql/start.js")).text()
    style = await (await client.get("/graphiql/graphiql.min.css")).text()

    assert re.findall(r"https?:", ours) == []
    assert set(re.findall(r"url\(['\"]?(\w+:?)", style)) <= {"data:"}


async def test_the_ready_operations_are_valid(client: Client) -> None:
    operations = await (await client.get("/graphiql/operations.graphql")).text()

    assert validate(SCHEMA._schema, parse(operations)) == []


@pytest.mark.parametrize("name", ["index.html", "..%2fpage.py", "%2e%2e%2f%2e%2e%2f__init__.py", "%00", "x" * 5000])
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    assert (await client.get(URL(f"/graphiql/{name}", encoded=True))).status == 404
