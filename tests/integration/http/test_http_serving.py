"""The table before aiohttp's router makes no difference but in time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from jobqueue.api.routes import build_api
from jobqueue.api.serving import SHORTCUTS
from jobqueue.clock import ServerClock
from jobqueue.service import JobService

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


async def test_every_route_without_a_parameter_is_in_the_table(client: Client) -> None:
    app = client.app
    assert app is not None

    paths = {path for _, path in app[SHORTCUTS]}

    assert {"/jobs", "/jobs/bulk", "/livez", "/metrics"} < paths
    assert not any("{" in path for path in paths)
