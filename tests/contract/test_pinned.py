"""Whatever the URI says: a majority that has journalled it for every write, the primary for every read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from bench import BOOM, LEASE, NOW, Bench, chosen_backend
from commands import LISTENER, Command

from jobqueue.driver import lease_store
from jobqueue.job import LogLine, Status
from jobqueue.repository import JobFilter
from jobqueue.settings import Settings

CARELESS = {
    "w": "1",
    "journal": "false",
    "wtimeoutMS": "1",
    "readPreference": "secondaryPreferred",
    "readConcernLevel": "available",
}
MAJORITY = {"w": "majority", "j": True}
WRITES = ("insert", "update", "delete", "findAndModify", "commitTransaction")


@pytest.fixture(params=["embedded-motor", "embedded-pymongo", "mongodb"])
def backend(request: pytest.FixtureRequest) -> str:
    """mongomock sends nothing."""
    return chosen_backend(request)


@pytest.fixture
def uri(backend: str, request: pytest.FixtureRequest) -> str:
    """As in a URI that somebody copied from another application."""
    parts = urlsplit(str(request.getfixturevalue("mongodb_uri" if backend == "mongodb" else "server_uri")))
    options = dict(parse_qsl(parts.query)) | CARELESS
    return parts._replace(path=parts.path or "/", query=urlencode(options)).geturl()


def is_within_transaction(body: Mapping[str, Any]) -> bool:
    return "autocommit" in body and "commitTransaction" not in body


def durability(commands: list[Command]) -> list[Any]:
    """The write concern of each write by itself and of each transaction."""
    writes = [one.body for one in commands if one.name in WRITES]
    return [body.get("writeConcern") for body in writes if not is_within_transaction(body)]


def read_levels(commands: list[Command]) -> set[Any]:
    concerns = [one.body.get("readConcern", {}) for one in commands]
    return {concern["level"] for concern in concerns if "level" in concern}


def preferences(commands: list[Command]) -> set[Any]:
    return {one.body["$readPreference"]["mode"] for one in commands if "$readPreference" in one.body}


async def test_the_uri_takes_nothing_from_what_is_promised(bench: Bench) -> None:
    await bench.add()  # its queue is noted, with the others that are
    with LISTENER.listening() as commands:
        done, again, gone = await bench.claim(*await bench.add_many(3))
        await bench.jobs.complete(done, {"n": 1}, at=NOW)
        await bench.jobs.retry(again, BOOM, run_at=NOW, at=NOW)
        await bench.jobs.append_logs(gone.job_id, [LogLine(at=NOW, attempt=1, level="info", message="hello")])
        await bench.jobs.promote(now=NOW, limit=10)
        await bench.jobs.delete(done.job_id)
        await bench.jobs.save_counts()
        await bench.jobs.totals()
        await bench.jobs.list(JobFilter(status=Status.PENDING), before=None, limit=10, max_bytes=1 << 20)
        await bench.candidate_ids()

    assert {one.name for one in commands} >= {"insert", "update", "delete", "find", "aggregate"}
    assert [concern for concern in durability(commands) if concern != MAJORITY] == []
    assert read_levels(commands) <= {"local", "snapshot"}
    assert preferences(commands) <= {"primary"}


async def test_it_takes_nothing_from_the_leases_either(bench: Bench, uri: str) -> None:
    claim = await bench.running()
    store = lease_store(Settings(database=bench.raw.database.name), uri)

    with LISTENER.listening() as commands:
        await asyncio.to_thread(store.hello)
        await asyncio.to_thread(store.renew, [claim], NOW + LEASE)
        await asyncio.to_thread(store.held, [claim.job_id])
    store.close()

    assert durability(commands) == [MAJORITY]
    assert read_levels(commands) == {"local"}
    assert preferences(commands) <= {"primary"}
