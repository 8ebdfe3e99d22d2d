"""Processes die at random moments, for many rounds, and at the end every accepted job is finished and explained.

The short form runs with every `make test`, the long one with `make soak`. A failing run names its seed;
JOBQUEUE_TEST_SEED=n plays the same accidents again (the operating system adds chance of its own).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from uuid import uuid4

import aiohttp
import pytest
from audit import DATABASE, Audit, assert_clean, finished_jobs
from databases import DatabaseProcess
from fleet import Accidents, Callers, Fleet
from observers import Client, Witness
from pymongo import MongoClient

Settings = Callable[..., dict[str, str]]
SEED = int(os.environ.get("JOBQUEUE_TEST_SEED", time.time_ns() % 1_000_000))
MONGODB_URI = os.environ.get("JOBQUEUE_TEST_MONGODB_URI")
LEASE_SECONDS = 2.0
WORKERS = 3
MANY_ATTEMPTS = {"MAX_RETRIES": "50", "LEASE_SECONDS": str(LEASE_SECONDS)}
"""So that no job runs out of them, however often it is hit."""


@dataclass(frozen=True)
class Storm:
    """How much of it. `each_round` happens `rounds` times, its first and then the others in a random order; jobs are
    posted all the while. The first has to be one of a worker."""

    jobs: int
    rounds: int
    each_round: tuple[str, ...]
    apart_seconds: float
    posting_seconds: float
    patience_seconds: float


PROCESSES = ("kill_worker", "kill_worker", "kill_api", "kill_database")
FREEZES = ("freeze_worker", "freeze_database", "kill_worker")
SHORT = [
    pytest.param(Storm(1_000, 2, PROCESSES, 0.5, 5, 60), id="kills"),
    pytest.param(Storm(500, 1, FREEZES, 0.5, 5, 60), id="freezes"),
]
LONG = [
    pytest.param(Storm(10_000, 12, PROCESSES, 3.0, 150, 600), id="kills"),
    pytest.param(Storm(10_000, 8, FREEZES, 3.0, 120, 600), id="freezes"),
    pytest.param(Storm(10_000, 40, ("kill_worker",), 2.0, 120, 600), id="workers only"),
]


async def weather(
    storm: Storm,
    env: dict[str, str],
    database: DatabaseProcess | None,
    witness: Witness,
) -> tuple[Audit, list[str]]:
    """Post jobs and let accidents happen until both are over, then look at what is left."""
    uri, name = env["JOBQUEUE_MONGODB_URI"], env.get("JOBQUEUE_DATABASE", DATABASE)
    print(f"JOBQUEUE_TEST_SEED={SEED}")
    random, started = Random(SEED), time.monotonic()
    async with Fleet(env, workers=WORKERS) as fleet, aiohttp.ClientSession() as http:
        # One more than the others have room for, so that each worker has something to lose at the first accident.
        slots = int(env["JOBQUEUE_WORKERS"])
        held = await Client(http, fleet.url).bulk([{"type": "hold"} for _ in range(slots * (WORKERS - 1) + 1)])
        await witness.sees(len(held), seconds=120)
        callers = Callers(fleet.url, Random(SEED + 1), total=storm.jobs, seconds=storm.posting_seconds)
        accidents = Accidents(fleet, database, random, lease_seconds=LEASE_SECONDS)
        first, *others = storm.each_round
        names = [one for _ in range(storm.rounds) for one in (first, *accidents.shuffled(others))]
        async with asyncio.TaskGroup() as group:
            group.create_task(callers.run())
            await accidents.happen(names[:1], apart_seconds=storm.apart_seconds)
            witness.let_go()
            group.create_task(accidents.happen(names[1:], apart_seconds=storm.apart_seconds))
        accepted = callers.accepted.union(held)
        jobs = await finished_jobs(uri, accepted, seconds=storm.patience_seconds, name=name)
    audit = Audit(jobs, accepted, callers.in_doubt, witness)
    print(json.dumps({**audit.figures(), "accidents": len(names), "seconds": round(time.monotonic() - started)}))
    return audit, accidents.happened


@pytest.mark.timeout(600)  # 72 s beside three busy loops
@pytest.mark.parametrize("storm", SHORT)
async def test_whatever_dies_every_accepted_job_ends_once_and_is_explained_by_its_attempts(
    storm: Storm, settings_for: Settings, database: DatabaseProcess, witness: Witness
) -> None:
    audit, happened = await weather(storm, settings_for(**MANY_ATTEMPTS), database, witness)

    assert_clean(audit)
    assert len(happened) == storm.rounds * len(storm.each_round)
    assert audit.repeated > 0, "no attempt was hit: the test shows nothing"
    assert len(audit.accepted) > storm.jobs / 2


@pytest.mark.soak
@pytest.mark.parametrize("storm", LONG)
async def test_in_a_long_storm_too(
    storm: Storm, settings_for: Settings, database: DatabaseProcess, witness: Witness
) -> None:
    audit, _ = await weather(storm, settings_for(**MANY_ATTEMPTS), database, witness)

    assert_clean(audit)
    assert audit.repeated > 0


@pytest.mark.skipif(MONGODB_URI is None, reason="JOBQUEUE_TEST_MONGODB_URI is not set")
async def test_on_mongodb_too(settings_for: Settings, witness: Witness) -> None:
    """Without the accidents of the database, which is not ours to kill."""
    assert MONGODB_URI is not None
    name, storm = f"test-{uuid4().hex}", Storm(1_000, 2, ("kill_worker", "freeze_worker", "kill_api"), 0.5, 5, 60)
    try:
        env = settings_for(MONGODB_URI=MONGODB_URI, DATABASE=name, **MANY_ATTEMPTS)
        audit, _ = await weather(storm, env, None, witness)
    finally:
        with MongoClient[dict[str, object]](MONGODB_URI) as client:
            client.drop_database(name)

    assert_clean(audit)
    assert audit.repeated > 0
