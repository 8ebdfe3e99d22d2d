"""`jobqueue doctor` as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
from databases import DatabaseProcess
from observers import WITNESSED, Client
from processes import ServiceProcess, run_command
from pymongo import MongoClient

Settings = Callable[..., dict[str, str]]


async def test_a_service_that_works_is_healthy(http: aiohttp.ClientSession, settings_for: Settings) -> None:
    env = settings_for()
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "work", "payload": {}} for _ in range(20)])
        await client.get(f"/jobs/{ids[-1]}?wait=30")
        await client.bulk([{"type": "work", "payload": {"seconds": 60}}, {"type": "work", "delaySeconds": 60}])

        code, report, _ = await run_command("doctor", env=env)

    assert (code, report.splitlines()[-1]) == (0, "healthy")


async def test_it_changes_nothing_without_fix_and_with_it_the_next_start_succeeds(
    settings_for: Settings, database: DatabaseProcess
) -> None:
    env = settings_for()
    async with ServiceProcess("api", env=env):
        pass
    with MongoClient[dict[str, Any]](database.uri) as client:
        client["jobqueue"]["jobs"].drop_index("due_v1")
        client["jobqueue"]["jobs"].create_index([("updatedAt", 1)], name="due_v1")

    refused, _, message = await run_command("api", env=env)
    found, report, _ = await run_command("doctor", "--json", env=env)
    still, _, _ = await run_command("api", env=env)
    fixed, after, _ = await run_command("doctor", "--fix", "--json", env=env)
    async with ServiceProcess("api", env=env):
        pass

    assert (refused, found, still, fixed) == (1, 1, 1, 0)
    assert "`jobqueue doctor --fix`" in message
    assert [(one["name"], one["examples"]) for one in json.loads(report)["findings"]] == [
        ("index-different", ["jobs.due_v1"])
    ]
    assert json.loads(after)["healthy"] is True
    assert json.loads(after)["mended"] == {"index-different": 1}


async def test_a_database_that_does_not_answer_is_one_sentence(
    settings_for: Settings, database: DatabaseProcess
) -> None:
    await database.kill()

    code, report, message = await run_command("doctor", env=settings_for())

    assert (code, report) == (1, "")
    assert message.splitlines()[-1] == (
        "jobqueue: cannot connect: no MongoDB server could be reached:"
        f" 127.0.0.1:{database.port} (the connection is refused)"
    )
