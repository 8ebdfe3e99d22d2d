"""Of a request that is answered nothing stays, however it was answered. What objects hold that hold each other stays
until the garbage collector comes, once in thousands of requests (`process.calm_the_garbage_collector`): of large bodies
that would be gigabytes."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from memory_jobs import MemoryJobs

from jobqueue.errors import JobQueueError, QueueFull, Unavailable
from jobqueue.service import NewJob

Client = TestClient[web.Request, web.Application]

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
JOB: dict[str, Any] = {"type": "a", "payload": "a payload"}
FIRST: dict[str, Any] = {"id": "first", "type": "a", "idempotencyKey": "k"}


def as_json(body: Any) -> bytes:
    return json.dumps(body).encode()


@pytest.fixture
def new_jobs_left(no_collector: None) -> Callable[[], int]:
    """How many there are that were not there before."""
    before = _new_jobs()
    return lambda: _new_jobs() - before


def _new_jobs() -> int:
    return sum(type(one) is NewJob for one in gc.get_objects())


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/jobs", JSON, as_json(JOB), 201),
        ("/jobs", JSON, as_json(JOB | {"id": "first"}), 409),
        ("/jobs", JSON, as_json(JOB | {"fault": {"failures": 1}}), 400),
        ("/jobs", JSON | {"Idempotency-Key": "k"}, as_json(JOB | {"id": "first"}), 422),
        ("/jobs", JSON | {"Idempotency-Key": "k"}, as_json({"id": "first", "type": "a"}), 201),
        ("/jobs/bulk", JSON, as_json([JOB, JOB | {"id": "first"}]), 200),
        ("/jobs/bulk", JSON, as_json([JOB, {"typo": 1}, JOB]), 200),
        ("/jobs/bulk", JSON, as_json([JOB, JOB | {"fault": {"failures": 1}}]), 200),
        ("/jobs/bulk", NDJSON, b"\n".join([as_json(JOB), b"{", as_json(JOB)]), 200),
    ],
    ids=[
        "stored",
        "duplicate",
        "fault",
        "key of another request",
        "replayed",
        "bulk with a duplicate",
        "bulk with a typo",
        "bulk with a fault",
        "lines with a broken one",
    ],
)
async def test_nothing_is_left_of_what_was_asked_for(
    client: Client, new_jobs_left: Callable[[], int], path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with client.post("/jobs", json=FIRST) as first:
        assert first.status == 201

    async with client.post(path, data=body, headers=headers) as response:
        assert response.status == status
        await response.read()

    assert new_jobs_left() == 0


@pytest.mark.parametrize("error", [QueueFull("full"), Unavailable("away")], ids=lambda error: type(error).__name__)
async def test_nothing_is_left_of_what_could_not_be_stored(
    client: Client, jobs: MemoryJobs, new_jobs_left: Callable[[], int], error: JobQueueError
) -> None:
    jobs.broken = error

    async with client.post("/jobs", json=JOB) as response:
        assert response.status == 503
        await response.read()

    error.with_traceback(None)  # this one is the test's own
    assert new_jobs_left() == 0
