"""The main path over HTTP down to documents, through the real repository, on mongomock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from memory_jobs import SilentDispatcher
from mongomock_motor import AsyncMongoMockClient

from jobqueue.api.routes import build_api
from jobqueue.clock import ServerClock
from jobqueue.dispatch import Dispatcher
from jobqueue.following import Followers
from jobqueue.job import JobId, Lease, LeaseId, WorkerId
from jobqueue.mongo import MongoJobRepository
from jobqueue.repository import Features, JobRepository
from jobqueue.service import JobService

Client = TestClient[web.Request, web.Application]
MakeService = Callable[[JobRepository, Dispatcher, Followers], JobService]


@pytest.fixture
async def repository(mock_takes_sort: None) -> AsyncIterator[MongoJobRepository]:
    client: Any = AsyncMongoMockClient()
    repository = MongoJobRepository(client, "jobqueue", features=Features(name="mongomock", version="7.0"))
    await repository.prepare()
    yield repository
    await repository.aclose()


@pytest.fixture
async def client(repository: MongoJobRepository, make_service: MakeService) -> AsyncIterator[Client]:
    service = make_service(repository, SilentDispatcher(), Followers(repository))
    app = build_api(service, clock=ServerClock(), random=Random(2))
    async with TestClient(TestServer(app)) as client:
        yield client


async def run(repository: MongoJobRepository, *job_ids: str) -> Lease:
    """Claim these jobs as a worker does."""
    moment = ServerClock().now()
    lease = Lease(id=LeaseId("l1"), worker_id=WorkerId("w1"), expires_at=moment)
    claimed = await repository.claim([JobId(job_id) for job_id in job_ids], lease, at=moment)
    assert len(claimed.jobs) == len(job_ids)
    return lease


async def test_a_job_goes_in_and_comes_back_the_same_by_every_way(client: Client) -> None:
    body = {"id": 101, "type": "email", "payload": {"$set": {"a.b": [1, 2.5, None, "ü\0"]}, "": {}}, "tags": ["x"]}

    posted = await (await client.post("/jobs", json=body)).json()

    assert posted["id"] == "101"
    assert posted["payload"] == body["payload"]
    assert await (await client.get("/jobs/101")).json() == posted
    assert await (await client.get("/jobs?id=101")).json() == posted
    assert await (await client.get("/jobs?tag=x&type=email&status=pending")).json() == [posted]
    assert (await client.post("/jobs", json=body)).status == 409


async def test_pages_of_real_documents_have_no_gaps_and_no_repeats(client: Client) -> None:
    answer = await (await client.post("/jobs/bulk", json=[{"type": "a"}] * 25)).json()
    ids = [item["id"] for item in reversed(answer["items"])]

    seen: list[str] = []
    path: str | None = "/jobs?limit=7"
    while path is not None:
        response = await client.get(path)
        seen += [job["id"] for job in await response.json()]
        path = response.headers["Link"].split(">")[0][1:] if "Link" in response.headers else None

    assert seen == ids


async def test_a_job_is_cancelled_put_back_and_deleted(client: Client) -> None:
    await client.post("/jobs", json={"id": "a"})

    assert (await client.post("/jobs/a/cancel")).status == 200
    assert (await client.post("/jobs/a/cancel")).status == 409
    assert (await client.post("/dlq/a/retry")).status == 409
    assert (await client.post("/jobs/a/retry")).status == 202
    assert (await (await client.get("/jobs/a")).json())["redrives"] == 1
    assert (await client.delete("/jobs/a")).status == 204
    assert (await client.get("/jobs/a")).status == 404


async def test_a_running_job_shows_who_runs_it_and_can_be_asked_to_stop(
    client: Client, repository: MongoJobRepository
) -> None:
    await client.post("/jobs", json={"id": "a"})
    await run(repository, "a")

    job = await (await client.get("/jobs/a")).json()
    response = await client.post("/jobs/a/cancel")

    assert (job["status"], job["retryCount"], job["lease"]["workerId"]) == ("processing", 1, "w1")
    assert "id" not in job["lease"]
    assert response.status == 202
    assert (await client.delete("/jobs/a")).status == 409


async def test_bulk_items_meet_each_other_and_what_is_stored(client: Client) -> None:
    await client.post("/jobs", json={"id": "a"})

    answer = await (await client.post("/jobs/bulk", json=[{"id": "b"}, {"id": "a"}, {"id": "b"}, {"id": "c"}])).json()

    assert [item["status"] for item in answer["items"]] == [201, 409, 409, 201]


async def test_what_people_stored_by_hand_is_shown(client: Client, repository: MongoJobRepository) -> None:
    stored: Any = repository._store.jobs
    await stored.insert_one({"_id": "by hand", "type": "a", "status": "pending", "payload": b"\xff", "seq": 1})

    assert [job["id"] for job in await (await client.get("/jobs")).json()] == ["by hand"]
    assert (await client.get("/jobs/by%20hand")).status == 200


async def test_queues_and_readiness_come_from_the_store(client: Client) -> None:
    await client.post("/jobs", json={"type": "a", "queue": "slow"})

    (queue,) = await (await client.get("/queues")).json()

    assert (queue["name"], queue["depth"], queue["pending"]) == ("slow", 1, 1)
    assert await (await client.get("/workers")).json() == []
    assert (await client.get("/readyz")).status == 200
