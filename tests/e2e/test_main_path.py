"""The job of the second seed's README, word for word: posted, stored, claimed, run, finished."""

from __future__ import annotations

import re
from collections.abc import Callable

import aiohttp
import pytest
from observers import WITNESSED, Client, Witness
from processes import ServiceProcess

EMAIL = {"type": "email", "payload": {"to": "user@example.com", "subject": "Welcome", "body": "Hello!"}}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Settings = Callable[..., dict[str, str]]
VARIANTS = [
    pytest.param({"DRIVER": "motor"}, id="motor"),
    pytest.param({"DRIVER": "pymongo"}, id="pymongo"),
    pytest.param({"DRIVER": "motor", "CLAIM": "single"}, id="motor-single-claims"),
    pytest.param({"DRIVER": "pymongo", "CLAIM": "single"}, id="pymongo-single-claims"),
]


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_posted_job_is_stored_claimed_run_and_completed(
    http: aiohttp.ClientSession, settings_for: Settings, variant: dict[str, str]
) -> None:
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true", **variant)) as service:
        client = Client(http, service.url)

        status, created = await client.post("/jobs", EMAIL)

        assert status == 201
        assert {name: created[name] for name in ("type", "payload", "status", "retryCount")} == {
            **EMAIL,
            "status": "pending",
            "retryCount": 0,
        }
        assert re.fullmatch(r"[0-9a-f]{24}", created["id"])
        assert TIME.fullmatch(created["createdAt"])
        assert created["updatedAt"] == created["createdAt"]
        status, done = await client.get(f"/jobs/{created['id']}?wait=30")
        assert (status, done["status"], done["retryCount"]) == (200, "completed", 1)
        assert await client.get(f"/jobs?id={created['id']}") == (200, done)


async def test_the_list_has_the_newest_fifty_first(http: aiohttp.ClientSession, settings_for: Settings) -> None:
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true")) as service:
        client = Client(http, service.url)
        ids = [(await client.post("/jobs", EMAIL))[1]["id"] for _ in range(53)]

        status, newest = await client.get("/jobs")

        assert status == 200
        assert [job["id"] for job in newest] == ids[:-51:-1]


async def test_a_job_that_keeps_failing_ends_failed_after_max_retries_attempts(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    env = settings_for(MAX_RETRIES="3", BACKOFF_BASE_SECONDS="0.05")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        _, created = await client.post("/jobs", {"type": "always-fails"})

        _, failed = await client.get(f"/jobs/{created['id']}?wait=30")

        assert (failed["status"], failed["retryCount"], failed["maxRetries"]) == ("failed", 3, 3)
        assert [error["attempt"] for error in failed["errors"]] == [1, 2, 3]
        assert {error["message"] for error in failed["errors"]} == {"no luck"}
        _, dead = await client.get("/dlq")
        assert [job["id"] for job in dead["jobs"]] == [created["id"]]


async def test_priorities_decide_the_order_among_waiting_jobs(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    env = settings_for(WORKERS="1")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        [blocker] = await client.bulk([{"type": "hold"}])
        await witness.sees(1)
        priorities = [0, 5, -3, 9, 1]
        ids = await client.bulk([{"type": "work", "payload": {}, "priority": value} for value in priorities])

        witness.let_go()
        for job_id in ids:
            await client.get(f"/jobs/{job_id}?wait=30")

        priority = dict(zip(ids, priorities, strict=True))
        first, *others = witness.began()
        assert first == blocker
        assert [priority[job_id] for job_id in others] == sorted(priorities, reverse=True)
