"""A database that takes connections and says nothing, as behind a silent partition: nobody waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Literal

import pytest
from bench import insert_one
from databases import DatabaseProcess
from hand_clock import HandClock
from processes import frozen

import jobqueue.driver
from jobqueue.clock import Identifiers
from jobqueue.driver import connect
from jobqueue.errors import OutcomeUnknown, Unavailable
from jobqueue.job import Job
from jobqueue.mongo import MongoJobRepository, changes
from jobqueue.settings import Settings

CLIENT_SECONDS = 1.0


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_an_insert_without_an_answer_ends_in_doubt_and_may_be_repeated(
    database: DatabaseProcess, driver: Literal["motor", "pymongo"]
) -> None:
    clock, identifiers = HandClock(), Identifiers()
    now = clock.now()
    first, job = [
        Job(
            id=identifiers.job_id(now),
            created_at=now,
            updated_at=now,
            run_at=now,
            seq=identifiers.seq(now),
            insert_id=identifiers.token(),
        )
        for _ in range(2)
    ]
    client = connect(Settings(driver=driver), database.uri)
    async with aclosing(MongoJobRepository(client, "silent", clock=clock, client_seconds=CLIENT_SECONDS)) as jobs:
        await jobs.prepare()
        await insert_one(jobs, first)

        async with frozen(database), asyncio.timeout(10 * CLIENT_SECONDS):
            with pytest.raises(OutcomeUnknown) as doubt:
                await insert_one(jobs, job)

        assert doubt.value.job_id == job.id
        assert str(doubt.value) == "cannot store the job: MongoDB did not answer in time"
        assert await insert_one(jobs, job) == job
        assert await jobs.get(job.id) == job


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_who_listens_is_told_that_no_answer_comes(
    database: DatabaseProcess, driver: Literal["motor", "pymongo"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever time-outs the URI names. (A listener that waits for ever cannot be closed either.)"""
    monkeypatch.setattr(changes, "AWAIT_MILLISECONDS", 100)
    monkeypatch.setattr(jobqueue.driver, "SOCKET_MILLISECONDS", 1_000)
    client = connect(Settings(driver=driver), f"{database.uri}&timeoutMS=600000&socketTimeoutMS=600000")
    opened = asyncio.Event()
    async with aclosing(MongoJobRepository(client, "silent")) as jobs:
        await jobs.prepare()
        listening = asyncio.ensure_future(anext(jobs.signals(on_open=opened.set)))
        await asyncio.wait_for(opened.wait(), 20)

        async with frozen(database), asyncio.timeout(20):
            with pytest.raises(Unavailable, match="cannot watch for work: MongoDB did not answer in time"):
                await listening
