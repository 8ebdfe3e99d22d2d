"""The requests of five other job queues, read from docs/coming-from.md and executed as they were documented there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import collection
import pytest
from curl import Shell
from databases import DatabaseProcess
from node import NodeProgram
from observers import Client, eventually
from processes import ROOT, ServiceProcess
from pymongo import AsyncMongoClient

from jobqueue.api.graphql.page import OPERATIONS

PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
POSTMAN = Path(__file__).parent / "coming_from" / "job_queue_service.postman_collection.json"
THEIR_ADDRESS = "http://localhost:8080"
DOCUMENTED = {"id", "type", "payload", "status", "retryCount", "createdAt", "updatedAt"}
"""The fields that the Job Queue Service shows of a job."""


def blocks(name: str, language: str) -> list[str]:
    """What stands in the blocks of this language in the section of one of the five."""
    section = re.search(rf"^## {re.escape(name)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    return [str(block) for block in re.findall(rf"```{language}\n(.*?)```", section[1], re.DOTALL)]


@pytest.fixture
async def service(settings_for: Callable[..., dict[str, str]]) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true", BACKOFF_BASE_SECONDS="0.1")) as service:
        yield service


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def client(http: aiohttp.ClientSession, service: ServiceProcess) -> Client:
    return Client(http, service.url)


def test_every_test_that_the_page_names_is_there() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    names = {name for source in sources for name in re.findall(r"^(?:async )?def (test_\w+)", source, re.MULTILINE)}

    shown = re.findall(r"`(test_\w+)`", PAGE)

    assert len(shown) > 40
    assert set(shown) - names == set()


def test_every_setting_and_route_that_the_page_names_is_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert {name for name in re.findall(r"JOBQUEUE_\w+", PAGE) if f"`{name}`" not in readme} == set()


# Simple Distributed Job Queue Simulation


async def test_every_operation_of_the_playground_does_what_its_table_says(
    client: Client, http: aiohttp.ClientSession
) -> None:
    async def run(operation: str, **variables: Any) -> Any:
        document = OPERATIONS.read_text(encoding="utf-8")
        body = {"query": document, "operationName": operation, "variables": variables}
        status, answer = await client.post("/graphql", body)
        assert (status, answer.get("errors")) == (200, None)
        return answer["data"]

    async with http.get(f"{client.url}/graphiql") as playground:
        assert (playground.status, playground.content_type) == (200, "text/html")
    several = list((await run("SimultaneousCreateJob")).values())
    unstable = (await run("SimulateUnstableJob"))["Enqueue"]
    one = (await run("Enqueue"))["Enqueue"]
    created = [*several, unstable, one]
    for job in created:
        await client.get(f"/jobs/{job['id']}?wait=30")

    found = [(await run("GetJobById", id=job["id"]))["Job"] for job in created]
    assert {job["status"] for job in created} == {"PENDING"}
    assert {job["status"] for job in found} == {"COMPLETED"}
    assert [job["attempts"] for job in found] == [*[1] * len(several), 3, 1]
    assert {job["id"] for job in (await run("GetAllJobs"))["Jobs"]} == {job["id"] for job in created}
    counts = (await run("GetAllJobStatus"))["JobStatus"]
    assert counts == {"pending": 0, "running": 0, "failed": 0, "completed": len(created), "cancelled": 0}


# JobQueue


async def test_the_calls_of_jobqueue_are_answered_as_they_were(client: Client, shell: Shell) -> None:
    calls = [call.replace(THEIR_ADDRESS, client.url) for call in blocks("JobQueue", "sh")]
    submit, check, dead_letters, retry, metrics = calls

    status, job = await shell.run(submit)
    assert (status, job["payload"], job["priority"], job["maxRetries"]) == (201, "process-order-42", 5, 3)
    assert job["idempotencyKey"] == "order-42"
    status, problem = await shell.run(submit)
    assert (status, problem["jobId"]) == (409, job["id"])
    status, seen = await shell.run(check.replace("<job-id>", job["id"]))
    assert (status, seen["id"]) == (200, job["id"])
    dead = await a_dead_letter(client)
    status, letters = await shell.run(dead_letters)
    assert (status, letters["count"], [each["id"] for each in letters["jobs"]]) == (200, 1, [dead])
    assert await shell.run(retry.replace("<job-id>", dead)) == (202, {"status": "requeued", "jobId": dead})
    await client.get(f"/jobs/{dead}?wait=30")

    async def counted() -> bool:
        status, numbers = await shell.run(metrics)
        wanted = {"processed": 1, "dlq_size": 1, "queue_depth": 0, "in_progress": 0, "idempotency_keys": 1}
        return status == 200 and wanted.items() <= numbers.items()

    await eventually(counted, seconds=20, what="metrics that have both jobs")


async def a_dead_letter(client: Client) -> str:
    _, job = await client.post("/jobs", {"type": "fail", "max_retries": 1})
    _, ended = await client.get(f"/jobs/{job['id']}?wait=30")
    assert ended["status"] == "failed"
    return str(job["id"])


# Job Queue Service


async def test_the_requests_of_the_job_queue_service_are_answered_as_its_readme_shows(
    client: Client, shell: Shell, database: DatabaseProcess
) -> None:
    [body] = blocks("Job Queue Service", "json")
    post = f"curl -X POST {client.url}/jobs -H 'Content-Type: application/json' -d '{body}'"

    status, job = await shell.run(post)

    assert (status, job["status"], job["retryCount"]) == (201, "pending", 0)
    assert {name: job[name] for name in ("type", "payload")} == json.loads(body)
    assert re.fullmatch(r"[0-9a-f]{24}", job["id"])
    assert job.keys() >= DOCUMENTED
    _, done = await client.get(f"/jobs/{job['id']}?wait=30")
    assert await shell.run(f"curl '{client.url}/jobs?id={job['id']}'") == (200, done)
    assert (done["status"], done["retryCount"]) == ("completed", 1)
    later = [(await shell.run(post))[1]["id"] for _ in range(2)]
    status, listed = await shell.run(f"curl {client.url}/jobs")
    assert (status, [each["id"] for each in listed]) == (200, [*reversed(later), job["id"]])
    async with AsyncMongoClient[dict[str, Any]](database.uri) as mongo:
        document = await mongo["jobqueue"]["jobs"].find_one({"_id": job["id"]})
    assert document is not None
    assert document.keys() >= DOCUMENTED - {"id"}


async def test_the_postman_collection_of_the_job_queue_service_runs_as_it_is(client: Client, tmp_path: Path) -> None:
    newman = NodeProgram.find("newman")
    _, first = await client.post("/jobs", {"type": "email"})
    port = client.url.rpartition(":")[2]
    text = POSTMAN.read_text(encoding="utf-8").replace("8080", port).replace("<jobID>", first["id"])
    (tmp_path / "collection.json").write_text(text, encoding="utf-8")

    ended, executions = await collection.run_newman(
        newman, client.url, folder=tmp_path, path=tmp_path / "collection.json"
    )

    assert ended.code == 0, ended.output + ended.errors
    codes = {execution["item"]["name"]: execution["response"]["code"] for execution in executions}
    assert codes == {"Create Job": 201, "Get Job": 200, "List Jobs": 200}
    created, seen, listed = (json.loads(bytes(each["response"]["stream"]["data"])) for each in executions)
    assert (created["type"], created["payload"]["subject"], created["status"]) == ("email", "Welcome", "pending")
    assert seen["id"] == first["id"]
    assert [job["id"] for job in listed] == [created["id"], first["id"]]


# Distributed Job Queue


async def test_the_calls_of_the_distributed_job_queue_are_answered_as_they_were(client: Client, shell: Shell) -> None:
    calls = [call.replace(THEIR_ADDRESS, client.url) for call in blocks("Distributed Job Queue", "sh")]
    enqueue, metrics = calls

    status, job = await shell.run(enqueue)
    assert (status, job["id"]) == (201, "101")
    assert (await shell.run(enqueue))[0] == 409
    _, done = await client.get("/jobs/101?wait=30")
    assert done["status"] == "completed"
    final = (200, {"id": "101", "status": "completed", "retryCount": 1})
    assert await shell.run(f"curl '{client.url}/status?id=101'") == final
    status, numbers = await shell.run(metrics)
    assert status == 200
    assert numbers.keys() >= {"processed", "failed", "retried", "in_progress", "queue_depth"}


# Distributed Job Queue, Phase 1


async def test_enqueue_and_status_of_phase_1_work_without_a_body(client: Client, shell: Shell) -> None:
    status, accepted = await shell.run(f"curl -X POST {client.url}/enqueue")

    assert (status, accepted.keys(), accepted["status"]) == (202, {"id", "status"}, "pending")
    await client.get(f"/jobs/{accepted['id']}?wait=30")
    final = {"id": accepted["id"], "status": "completed", "retryCount": 1}
    assert await shell.run(f"curl {client.url}/status/{accepted['id']}") == (200, final)
