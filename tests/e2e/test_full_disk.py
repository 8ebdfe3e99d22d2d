"""The database's disk is full: the kernel refuses its files to grow, until there is room again."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import aiohttp
import pytest
from audit import Audit, assert_clean, finished_jobs
from databases import DatabaseProcess
from observers import WITNESSED, Client, Witness, eventually
from processes import ServiceProcess

Settings = Callable[..., dict[str, str]]
BIG = "x" * 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can change the limits of a running process")
async def test_while_the_disk_is_full_nothing_is_accepted_that_is_lost(
    http: aiohttp.ClientSession, settings_for: Settings, database: DatabaseProcess, witness: Witness
) -> None:
    env = settings_for(MAX_RETRIES="20", LEASE_SECONDS="2")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client, accepted, doubtful, statuses = Client(http, service.url), list[str](), list[str](), set[int]()

        async def enqueue() -> bool:
            name = f"job-{len(accepted) + len(doubtful)}"
            status, _ = await client.post("/jobs", {"id": name, "type": "work", "payload": {"fill": BIG}})
            statuses.add(status)
            (accepted if status == 201 else doubtful).append(name)
            return status == 503

        for _ in range(20):
            await enqueue()
        fill_disk(database)
        await eventually(enqueue, seconds=60, what="an enqueue is refused")
        alive, _ = await client.get("/livez")
        make_room(database)
        await database.kill()  # what a server does whose journal could not be written
        await database.start()
        await eventually(lambda: _is_accepted(enqueue), seconds=60, what="an enqueue is accepted")
        jobs = await finished_jobs(database.uri, accepted, seconds=60)

    assert alive == 200
    assert statuses == {201, 503}
    assert_clean(Audit(jobs, accepted, doubtful, witness))


async def _is_accepted(enqueue: Callable[[], object]) -> bool:
    return not await enqueue()  # type: ignore[misc]


def fill_disk(database: DatabaseProcess) -> None:
    """From now on no file of the server can be written beyond its first bytes."""
    _, hard = resource.prlimit(database.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(database.pid, resource.RLIMIT_FSIZE, (1, hard))


def make_room(database: DatabaseProcess) -> None:
    _, hard = resource.prlimit(database.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(database.pid, resource.RLIMIT_FSIZE, (hard, hard))
