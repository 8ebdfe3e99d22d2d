"""docs/mongo-shell.md, every block of it: run by mongosh on what a real service left behind."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from databases import DatabaseProcess
from node import NodeProgram
from observers import Client
from processes import ROOT, ServiceProcess
from pymongo import AsyncMongoClient

SECTION = re.compile(r"^## (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```js\n(.*?)```", re.DOTALL)
DEAD = ("dead-0", "dead-1", "dead-2")

Settings = Callable[..., dict[str, str]]


def documented() -> dict[str, str]:
    """Every block of the page by the heading above it."""
    page = (ROOT / "docs" / "mongo-shell.md").read_text(encoding="utf-8")
    return {heading: block for heading, text in SECTION.findall(page) for block in BLOCK.findall(text)}


async def in_mongosh(blocks: Mapping[str, str], uri: str, folder: Path) -> dict[str, Any]:
    """What each block answers, when mongosh runs all of them."""
    script = folder / "blocks.js"
    script.write_text(
        "\n".join(
            f"{{ const found = ({block});"
            f" print(EJSON.stringify([{json.dumps(name)}, found.toArray ? found.toArray() : found])); }}"
            for name, block in blocks.items()
        )
    )
    ended = await NodeProgram.find("mongosh").run(uri, "--quiet", "--file", str(script), home=folder)
    assert ended.code == 0, ended.output + ended.errors
    return dict(json.loads(line) for line in ended.output.splitlines() if line.startswith("["))


async def until_it_is(status: str, job_id: str, client: Client) -> None:
    async with asyncio.timeout(30):
        while (await client.get(f"/jobs/{job_id}"))[1]["status"] != status:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)


async def leave_jobs_behind(client: Client) -> None:
    """One job in each state that the page asks about, by the doings of the service itself."""
    await client.post("/jobs", {"id": "order-42", "type": "email", "payload": {"to": "user@example.com"}})
    for job_id in DEAD:
        await client.post("/jobs", {"id": job_id, "type": "fail", "payload": {"message": "no luck"}, "maxRetries": 1})
    await client.post("/jobs", {"id": "flaky-1", "type": "flaky", "payload": {"failures": 1}})
    await client.post("/jobs", {"id": "later-1", "type": "email", "delaySeconds": 3600})
    for job_id in ("order-42", *DEAD):
        await client.get(f"/jobs/{job_id}?wait=30")
    await until_it_is("scheduled", "flaky-1", client)
    # Both slots are taken from here on, so what comes after waits.
    for job_id in ("sleep-1", "sleep-2"):
        await client.post("/jobs", {"id": job_id, "type": "sleep", "payload": {"seconds": 600}})
        await until_it_is("processing", job_id, client)
    await client.post("/jobs", {"id": "stuck-1", "type": "report", "queue": "reports", "payload": "x" * 10_000})
    await client.post("/jobs", {"id": "waiting-1", "type": "email"})


async def back_date(uri: str) -> None:
    """What would take long to come about: an old job, one lease that is over and one that is not, a failure of
    another day. Those of today get a time that is still today when midnight comes while this runs."""
    now = datetime.now(UTC)
    async with AsyncMongoClient[dict[str, Any]](uri) as mongo:
        jobs = mongo["jobqueue"]["jobs"]
        await jobs.update_one({"_id": "stuck-1"}, {"$set": {"runAt": now - timedelta(minutes=6)}})
        await jobs.update_one({"_id": "sleep-1"}, {"$set": {"lease.expiresAt": now - timedelta(minutes=1)}})
        await jobs.update_one({"_id": "sleep-2"}, {"$set": {"lease.expiresAt": now + timedelta(hours=1)}})
        await jobs.update_one({"_id": "dead-0"}, {"$set": {"finishedAt": now - timedelta(days=2)}})
        today = {"$set": {"finishedAt": now + timedelta(hours=1)}}
        await jobs.update_many({"_id": {"$in": ["dead-1", "dead-2"]}}, today)


def ids(found: Any) -> list[str]:
    return [document["_id"] for document in found]


async def test_every_query_of_the_page_finds_what_its_heading_says_and_the_job_made_by_hand_runs(
    http: aiohttp.ClientSession, settings_for: Settings, database: DatabaseProcess, tmp_path: Path
) -> None:
    blocks = documented()
    NodeProgram.find("mongosh")
    slow = {"BACKOFF_BASE_SECONDS": "3600", "BACKOFF_MAX_SECONDS": "3600", "SIMULATE": "true"}
    async with ServiceProcess("serve", env=settings_for(WORKERS="2", **slow)) as service:
        await leave_jobs_behind(Client(http, service.url))
        await service.kill()
    await back_date(database.uri)

    found = await in_mongosh(blocks, database.uri.replace("/?", "/jobqueue?"), tmp_path)

    assert found.keys() == blocks.keys()
    check(found)
    async with ServiceProcess("serve", env=settings_for(**slow)) as service:
        client = Client(http, service.url)
        _, by_hand = await client.get("/jobs/by-hand-1?wait=60")
        assert (by_hand["status"], by_hand["retryCount"], by_hand["type"]) == ("completed", 1, "email")
        assert by_hand["payload"] == {"to": "user@example.com"}


def check(found: Mapping[str, Any]) -> None:
    depth = {(row["_id"]["queue"], row["_id"]["status"]): row["jobs"] for row in found["How much is where"]}
    assert depth == {
        ("default", "completed"): 1,
        ("default", "failed"): 3,
        ("default", "scheduled"): 2,
        ("default", "processing"): 2,
        ("default", "pending"): 1,
        ("reports", "pending"): 1,
    }
    assert ids(found["What waits the longest"]) == ["stuck-1", "waiting-1"]
    assert ids(found["What is stuck"]) == ["stuck-1"]
    running = found["What runs now, and where"]
    assert ids(running) == ["sleep-1", "sleep-2"]
    assert all(job["lease"]["workerId"] for job in running)
    assert ids(found["Whose worker is gone"]) == ["sleep-1"]
    (process,) = found["Which processes with workers are there"]
    assert {job["lease"]["workerId"] for job in running} == {process["_id"]}
    (failure,) = found["What failed today, by type"]
    assert failure["_id"] == {"type": "fail", "error": "jobqueue.builtin.TaskFailed"}
    assert failure["jobs"] == 2
    dead = found["The dead letters, newest first"]
    assert ids(dead) == ["dead-2", "dead-1", "dead-0"]
    assert {job["errors"][0]["message"] for job in dead} == {"no luck"}
    job = found["One job, with everything that is known of it"]
    assert (job["_id"], job["status"], job["result"]) == ("order-42", "completed", {"simulated": True})
    (tried,) = found["What was tried more than once"]
    assert (tried["_id"], tried["status"], tried["retryCount"]) == ("flaky-1", "scheduled", 1)
    (took,) = found["How long jobs take, by type"]
    assert (took["_id"], took["jobs"]) == ("email", 1)
    assert 0 < took["average"] <= took["longest"]
    biggest = found["The biggest documents"]
    assert biggest[0]["_id"] == "stuck-1"
    assert biggest[0]["bytes"] > 10_000
    assert found["A job made by hand"]["insertedId"] == "by-hand-1"
