"""The short routes: enqueue, and where a job stands."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from memory_jobs import MemoryJobs

from jobqueue.job import Status

Client = TestClient[web.Request, web.Application]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


async def test_enqueue_takes_the_body_of_a_job_and_answers_in_short(client: Client, jobs: MemoryJobs) -> None:
    response = await client.post("/enqueue", json={"type": "email", "payload": {"to": "a"}, "max_retries": 5})

    accepted = await response.json()
    assert response.status == 202
    assert accepted == {"id": accepted["id"], "status": "pending"}
    job = jobs.jobs[accepted["id"]]
    assert (job.type, job.payload, job.max_retries) == ("email", {"to": "a"}, 5)


@pytest.mark.parametrize("headers", [{}, FORM, JSON], ids=["nothing said", "as curl -d says", "JSON"])
async def test_enqueue_without_a_body_takes_a_job_of_nothing_but_defaults(
    client: Client, jobs: MemoryJobs, headers: dict[str, str]
) -> None:
    response = await client.post("/enqueue", headers=headers)

    assert response.status == 202
    job = jobs.jobs[(await response.json())["id"]]
    assert (job.type, job.queue, job.payload, job.status) == ("default", "default", None, Status.PENDING)


async def test_a_body_in_chunks_is_taken_as_well(client: Client, jobs: MemoryJobs) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"type": '
        yield b'"email"}'

    response = await client.post("/enqueue", data=chunks(), headers=JSON)

    assert jobs.jobs[(await response.json())["id"]].type == "email"


async def test_a_body_that_is_no_job_is_refused_as_elsewhere(client: Client, jobs: MemoryJobs) -> None:
    assert (await client.post("/enqueue", json={})).status == 400
    assert (await client.post("/enqueue", data=b"a=1", headers=FORM)).status == 415
    assert not jobs.jobs


@pytest.mark.parametrize("path", ["/status/j", "/status?id=j"])
async def test_status_shows_where_a_job_stands(client: Client, jobs: MemoryJobs, path: str) -> None:
    await client.post("/jobs", json={"id": "j"})
    jobs.put("j", status=Status.COMPLETED, retry_count=2)

    response = await client.get(path)

    assert (response.status, await response.json()) == (200, {"id": "j", "status": "completed", "retryCount": 2})


@pytest.mark.parametrize("path", ["/status/nobody", "/status?id=nobody", "/status?id=%00", "/status/" + "x" * 200])
async def test_the_status_of_a_job_that_is_not_there_is_404(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 404


@pytest.mark.parametrize("path", ["/status", "/status?id=a&id=b", "/status?id=a&wait=1", "/status/a?wait=1"])
async def test_a_question_that_names_no_one_job_is_400(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 400
