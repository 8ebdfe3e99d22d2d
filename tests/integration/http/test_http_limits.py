"""Refusals at the door: what a client is told, and that nothing of a refused request is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from memory_jobs import MemoryJobs, SilentDispatcher

from jobqueue.admission import AdmissionLimits
from jobqueue.api.errors import TYPE_PREFIX
from jobqueue.api.routes import build_api
from jobqueue.clock import Identifiers, ServerClock
from jobqueue.following import Followers
from jobqueue.job import Status
from jobqueue.repository import JobRepository
from jobqueue.service import JobService

Client = TestClient[web.Request, web.Application]
Serve = Callable[[AdmissionLimits], Awaitable[Client]]


@pytest.fixture
async def serve(jobs: MemoryJobs, dispatcher: SilentDispatcher) -> AsyncIterator[Serve]:
    """Starts the API with limits."""
    clients: list[Client] = []

    async def start(limits: AdmissionLimits) -> Client:
        repository = cast(JobRepository, jobs)
        service = JobService(
            repository,
            dispatcher,
            clock=ServerClock(),
            identifiers=Identifiers(Random(1)),
            followers=Followers(repository),
            max_retries_of=lambda job_type: 3,
            limits=limits,
        )
        client = TestClient(TestServer(build_api(service, clock=ServerClock(), random=Random(2))))
        clients.append(client)
        await client.start_server()
        return client

    yield start
    for client in clients:
        await client.close()


async def post(client: Client, path: str = "/jobs", body: Any = None) -> tuple[int, dict[str, str], Any]:
    response = await client.post(path, json=body or {"type": "a"})
    return response.status, dict(response.headers), await response.json()


async def test_when_too_many_wait_the_answer_is_503_and_says_when_to_try_again(serve: Serve, jobs: MemoryJobs) -> None:
    client = await serve(AdmissionLimits(pending=3))
    assert [(await post(client))[0] for _ in range(5)] == [201, 201, 201, 503, 503]

    status, headers, problem = await post(client, "/enqueue")

    assert (status, problem["type"]) == (503, TYPE_PREFIX + "queue-full")
    assert int(headers["Retry-After"]) >= 1
    assert "no more than 3 may" in problem["detail"]
    assert len(jobs.jobs) == 3
    assert {job.status for job in jobs.jobs.values()} == {Status.PENDING}


async def test_above_the_rate_the_answer_is_429_with_the_headers_of_the_draft(serve: Serve, jobs: MemoryJobs) -> None:
    client = await serve(AdmissionLimits(a_second=1))
    assert (await post(client))[0] == 201

    status, headers, problem = await post(client)

    assert (status, problem["type"]) == (429, TYPE_PREFIX + "rate-limited")
    assert headers["Retry-After"] == "1"
    assert headers["RateLimit-Policy"] == '"accepted";q=1;w=1'
    assert headers["RateLimit"] == '"accepted";r=0;t=1'
    assert len(jobs.jobs) == 1


@pytest.mark.parametrize(("limits", "status"), [(AdmissionLimits(pending=3), 503), (AdmissionLimits(a_second=3), 429)])
async def test_many_jobs_that_do_not_all_fit_are_refused_whole(
    serve: Serve, jobs: MemoryJobs, limits: AdmissionLimits, status: int
) -> None:
    client = await serve(limits)

    refused, headers, _ = await post(client, "/jobs/bulk", [{"type": "a"}] * 4)

    assert refused == status
    assert "Retry-After" in headers
    assert not jobs.jobs
    assert (await post(client, "/jobs/bulk", [{"type": "a"}] * 3))[0] == 200
    assert len(jobs.jobs) == 3


@pytest.mark.parametrize("limits", [AdmissionLimits(pending=2), AdmissionLimits(a_second=2)])
async def test_items_that_are_refused_for_themselves_take_no_place(
    serve: Serve, jobs: MemoryJobs, limits: AdmissionLimits
) -> None:
    client = await serve(limits)
    await post(client, body={"id": "taken"})

    for _ in range(3):
        _, _, answer = await post(client, "/jobs/bulk", [{"typ": "a"}, {"id": "taken"}])
        assert [item["status"] for item in answer["items"]] == [400, 409]
        assert (await post(client, body={"id": "taken"}))[0] == 409

    assert (await post(client))[0] == 201


async def test_a_full_service_shows_cancels_and_redrives(serve: Serve, jobs: MemoryJobs) -> None:
    """Only what is new is refused: what was accepted goes on."""
    client = await serve(AdmissionLimits(pending=1))
    _, _, job = await post(client)
    jobs.put(job["id"], status=Status.FAILED)
    assert (await post(client))[0] == 503

    assert (await client.get(f"/jobs/{job['id']}")).status == 200
    assert (await client.post(f"/jobs/{job['id']}/retry")).status == 202
    assert (await client.post(f"/jobs/{job['id']}/cancel")).status == 200
