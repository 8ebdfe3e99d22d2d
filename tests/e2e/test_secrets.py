"""Passwords and payloads in nothing that the processes print, log or answer, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import aiohttp
from databases import DatabaseProcess
from observers import WITNESSED, Client
from processes import ServiceProcess, run_command

from jobqueue.cli import program

Settings = Callable[..., dict[str, str]]
PASSWORD = "it's%20s3cr3t"
SECRET = "s3cr3t"


def assert_silent(*texts: str) -> None:
    for text in texts:
        assert SECRET not in text, text


async def test_a_process_that_cannot_connect_does_not_tell_its_password(settings_for: Settings, port: int) -> None:
    nobody_there = f"mongodb://me:{PASSWORD}@127.0.0.1:{port}/?tlsCertificateKeyFilePassword={SECRET}&tls=true"
    unknown_option = f"mongodb://me:{PASSWORD}@127.0.0.1/?authMechanism=NONE"
    not_escaped = f"mongodb://me:{PASSWORD}@@127.0.0.1/"
    a_part_as_host = f"mongodb://{SECRET}:27017/@127.0.0.1/"
    tried = [
        (nobody_there, "motor", ("api",)),
        (nobody_there, "pymongo", ("worker", "--tasks", WITNESSED)),
        (nobody_there, "motor", ("doctor", "--json", "--fix")),
        (unknown_option, "pymongo", ("api",)),
        (not_escaped, "motor", ("api",)),
        (a_part_as_host, "pymongo", ("api",)),
    ]
    results = await asyncio.gather(
        *(
            run_command(*command, env=settings_for(MONGODB_URI=uri, DRIVER=driver, LOG_LEVEL="DEBUG"))
            for uri, driver, command in tried
        )
    )

    for code, output, log in results:
        assert code == 1
        assert_silent(output, log)
        assert [line for line in log.splitlines() if line.startswith("jobqueue: ")]


async def test_a_server_that_refuses_the_password_is_not_told_of_with_it(
    settings_for: Settings, database: DatabaseProcess
) -> None:
    uri = f"mongodb://me:{PASSWORD}@127.0.0.1:{database.port}/?retryWrites=false"
    code, output, log = await run_command("api", env=settings_for(MONGODB_URI=uri, LOG_LEVEL="DEBUG"))

    assert code == 1, "the server took a password that it cannot know"
    assert_silent(output, log)


async def test_no_log_line_and_no_problem_of_a_running_service_has_a_payload(
    http: aiohttp.ClientSession, settings_for: Settings, database: DatabaseProcess
) -> None:
    env = settings_for(LOG_LEVEL="DEBUG", MAX_RETRIES="1")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        secret = {"card": SECRET}
        answers = [
            await client.post("/jobs", {"id": "a", "type": "work", "payload": secret}),
            await client.post("/jobs", {"id": "b", "type": "no-such-task", "payload": secret}),
            await client.post("/jobs", {"id": "c", "type": "block", "payload": secret}),  # wants `seconds`
        ]
        for name in "abc":
            await client.get(f"/jobs/{name}?wait=20")
        refused = [
            await client.post("/jobs", {"id": "a", "type": "work", "payload": secret}),
            await client.post("/jobs", {"type": "work", "payload": secret, "priority": "high"}),
        ]
        await database.kill()
        refused.append(await client.post("/jobs", {"type": "work", "payload": secret}))

    assert [status for status, _ in answers] == [201] * 3
    assert [status for status, _ in refused] == [409, 400, 503]
    assert_silent(json.dumps([body for _, body in refused]))
    assert_silent(json.dumps(list(service.events)), "".join(service.output))


def test_the_uri_is_no_option_of_any_command() -> None:
    """Everybody on a machine can read command lines."""
    options = {option for command in program.commands.values() for one in command.params for option in one.opts}
    assert not {option for option in options if "uri" in option or "password" in option}
