"""A bad network, and a bad disk, between the service and its database.

The proxy cuts, delays, stalls, half-closes, loses answers to commands that were carried out, and answers in the
server's place. What was accepted is finished at the end, and explained by its attempts.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random

import aiohttp
import pytest
from audit import Audit, assert_clean, finished_jobs
from databases import DatabaseProcess
from fleet import Callers, Fleet
from observers import WITNESSED, Client, Witness, eventually
from processes import ServiceProcess
from proxy import DISK_FULL, NO_MAJORITY, NOT_PRIMARY, READ_ONLY, WRITES, Fault, Lost, Message, Proxy, Weather

Settings = Callable[..., dict[str, str]]
SEED = int(os.environ.get("JOBQUEUE_TEST_SEED", time.time_ns() % 1_000_000))
LEASE_SECONDS = 2.0


@pytest.fixture
async def proxy(database: DatabaseProcess) -> AsyncIterator[Proxy]:
    async with Proxy(database.port) as proxy:
        yield proxy


@dataclass(frozen=True)
class Spell:
    """Some seconds of bad weather."""

    name: str
    seconds: float
    weather: Weather | None = None
    delay_seconds: float = 0.0
    act: Callable[[Proxy], None] = lambda proxy: None


def some(fault: Fault, share: float, random: Random, commands: frozenset[str] = WRITES) -> Weather:
    """This fault for a share of these commands."""
    return lambda message: fault if message.command in commands and random.random() < share else None


def first(fault: Fault, times: int, *, says: str) -> Weather:
    """This fault for the first updates that name this field."""
    faults = iter([fault] * times)
    return lambda message: next(faults, None) if message.command == "update" and message.says(says) else None


def spells(random: Random) -> list[Spell]:
    """One of each kind."""
    return [
        Spell("cut", 0.2, act=Proxy.cut),
        Spell("half-closed", 0.2, act=Proxy.half_close),
        Spell("stalled for less than a lease", LEASE_SECONDS / 2, act=Proxy.stall),
        Spell("stalled for more than a lease", LEASE_SECONDS * 2, act=Proxy.stall),
        Spell("slow", 1.0, delay_seconds=0.2),
        Spell("every tenth answer lost", 1.0, some(Lost.ANSWER, 0.1, random)),
        Spell("every tenth command lost", 1.0, some(Lost.COMMAND, 0.1, random)),
        Spell("answers lost, reads too", 1.0, some(Lost.ANSWER, 0.1, random, WRITES | {"find"})),
        Spell("no majority heard of", 1.0, some(NO_MAJORITY, 0.2, random)),
        Spell("disk full", 1.0, some(DISK_FULL, 0.5, random)),
        Spell("read-only", 1.0, some(READ_ONLY, 1.0, random)),
        Spell("stepped down", 1.0, some(NOT_PRIMARY, 0.5, random)),
    ]


def shuffled(forecast: list[Spell], random: Random) -> list[Spell]:
    return random.sample(forecast, len(forecast))


async def through(proxy: Proxy, forecast: list[Spell], random: Random) -> None:
    """One spell after another, each after a calm moment."""
    for spell in forecast:
        await asyncio.sleep(random.random() * 0.3)
        proxy.weather = spell.weather or proxy.weather
        proxy.delay_seconds = spell.delay_seconds
        spell.act(proxy)
        await asyncio.sleep(spell.seconds)
        proxy.clear_up()


async def storm(
    settings_for: Settings,
    database: DatabaseProcess,
    proxy: Proxy,
    witness: Witness,
    *,
    jobs: int,
    rounds: int,
    patience_seconds: float,
    **changes: str,
) -> Audit:
    print(f"JOBQUEUE_TEST_SEED={SEED}")
    random, started = Random(SEED), time.monotonic()
    env = settings_for(
        MONGODB_URI=proxy.uri, MAX_RETRIES="50", LEASE_SECONDS=str(LEASE_SECONDS), WORKERS="10", **changes
    )
    async with Fleet(env, workers=2) as fleet:
        forecast = [spell for _ in range(rounds) for spell in shuffled(spells(random), random)]
        callers = Callers(fleet.url, Random(SEED + 1), total=jobs, seconds=sum(spell.seconds for spell in forecast))
        async with asyncio.TaskGroup() as group:
            group.create_task(callers.run())
            group.create_task(through(proxy, forecast, random))
        finished = await finished_jobs(database.uri, callers.accepted, seconds=patience_seconds)
    audit = Audit(finished, callers.accepted, callers.in_doubt, witness)
    figures = {**audit.figures(), "faults": proxy.injected, "seconds": round(time.monotonic() - started)}
    print(json.dumps(figures))
    assert set(callers.statuses) <= {200, 201, 409, 503}
    return audit


@pytest.mark.timeout(300)  # what hangs fails sooner: it waits for jobs that finish
async def test_through_a_bad_network_every_accepted_job_ends_and_is_explained_by_its_attempts(
    settings_for: Settings, database: DatabaseProcess, proxy: Proxy, witness: Witness
) -> None:
    driver = ("motor", "pymongo")[SEED % 2]  # the long form takes both
    audit = await storm(settings_for, database, proxy, witness, jobs=600, rounds=1, patience_seconds=60, DRIVER=driver)

    assert_clean(audit)
    assert proxy.injected > 20, "the weather was fine: the test shows nothing"


@pytest.mark.soak
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_through_a_bad_network_for_long(
    settings_for: Settings, database: DatabaseProcess, proxy: Proxy, witness: Witness, driver: str
) -> None:
    audit = await storm(
        settings_for, database, proxy, witness, jobs=9_000, rounds=15, patience_seconds=600, DRIVER=driver
    )

    assert_clean(audit)


@pytest.fixture
async def service(settings_for: Settings, proxy: Proxy) -> AsyncIterator[ServiceProcess]:
    """Everything in one process, behind the proxy."""
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for(MONGODB_URI=proxy.uri)) as service:
        yield service


@dataclass(frozen=True)
class Doubt:
    """An insert that meets this fault, what its caller is told, and what posting it again says after that."""

    name: str
    fault: Fault
    problem: str
    again: int


DOUBTS = [
    Doubt("disk-full", DISK_FULL, "unavailable", 201),
    Doubt("read-only", READ_ONLY, "unavailable", 201),
    Doubt("stepped-down", NOT_PRIMARY, "outcome-unknown", 201),
    Doubt("no-majority", NO_MAJORITY, "outcome-unknown", 409),
    Doubt("answer-lost", Lost.ANSWER, "outcome-unknown", 409),
]


async def test_an_enqueue_that_may_not_last_is_a_503_within_ten_seconds_and_never_a_2xx(
    http: aiohttp.ClientSession, database: DatabaseProcess, settings_for: Settings
) -> None:
    async def met(doubt: Doubt) -> Doubt:
        async with Proxy(database.port) as proxy:
            env = settings_for(MONGODB_URI=proxy.uri, DATABASE=doubt.name)
            async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
                return replace(doubt, problem=await told(service, proxy, doubt), again=await again(service, doubt))

    async def told(service: ServiceProcess, proxy: Proxy, doubt: Doubt) -> str:
        client = Client(http, service.url)
        await client.bulk([{"type": "work", "payload": {}}])  # so that the queue is known
        proxy.weather = lambda message: doubt.fault if message.command == "insert" else None
        async with asyncio.timeout(10):
            status, body = await client.post("/jobs", {"id": doubt.name, "type": "work", "payload": {}})
        proxy.clear_up()
        assert status == 503
        return str(body["type"]).rpartition(":")[2]

    async def again(service: ServiceProcess, doubt: Doubt) -> int:
        client = Client(http, service.url)
        status, _ = await client.post("/jobs", {"id": doubt.name, "type": "work", "payload": {}})
        _, done = await client.get(f"/jobs/{doubt.name}?wait=30")
        assert (done["status"], done["retryCount"]) == ("completed", 1)
        return status

    # Together, because each takes the eight seconds for which an insert is tried; but in databases of their own, for at
    # its end each service is killed, and would take jobs of the others with it.
    async with asyncio.TaskGroup() as group:
        meeting = [group.create_task(met(doubt)) for doubt in DOUBTS]
    assert [each.result() for each in meeting] == DOUBTS


async def test_a_claim_whose_answer_is_lost_runs_once(
    http: aiohttp.ClientSession, service: ServiceProcess, proxy: Proxy, witness: Witness
) -> None:
    client = Client(http, service.url)
    [known] = await client.bulk([{"type": "work", "payload": {}}])
    await client.get(f"/jobs/{known}?wait=30")
    proxy.weather = first(Lost.ANSWER, 1, says="startedAt")

    ids = await client.bulk([{"type": "work", "payload": {}} for _ in range(20)])
    jobs = [(await client.get(f"/jobs/{job_id}?wait=30"))[1] for job_id in ids]

    assert [(job["status"], job["retryCount"]) for job in jobs] == [("completed", 1)] * 20
    assert proxy.injected == 1
    assert {witness.began()[job_id] for job_id in ids} == {1}


async def test_an_outcome_whose_answer_is_lost_is_written_once(
    http: aiohttp.ClientSession, service: ServiceProcess, proxy: Proxy, witness: Witness
) -> None:
    client = Client(http, service.url)
    ids = await client.bulk([{"type": "hold"} for _ in range(10)])
    await witness.sees(10)
    proxy.weather = first(Lost.ANSWER, 3, says="lastOutcome")
    witness.let_go()

    jobs = [(await client.get(f"/jobs/{job_id}?wait=30"))[1] for job_id in ids]

    assert [(job["status"], job["retryCount"]) for job in jobs] == [("completed", 1)] * 10
    assert {witness.began()[job_id] for job_id in ids} == {1}
    assert proxy.injected >= 1


async def test_after_an_outage_longer_than_a_lease_nobody_who_still_runs_is_rescued(
    http: aiohttp.ClientSession, settings_for: Settings, proxy: Proxy, witness: Witness
) -> None:
    """Every lease is expired when the database is back, two processes could take everything back, and at first the
    owners do not get through."""
    env = settings_for(MONGODB_URI=proxy.uri, LEASE_SECONDS=str(LEASE_SECONDS))
    worker = {name: value for name, value in env.items() if name != "JOBQUEUE_PORT"}
    async with (
        ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service,
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker),
    ):
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "work", "payload": {"seconds": 6.5}} for _ in range(30)])
        await witness.sees(30)

        proxy.refusing = True
        proxy.cut()
        await asyncio.sleep(2 * LEASE_SECONDS)
        proxy.weather = lambda message: Lost.COMMAND if _is_renewal(message) else None
        proxy.refusing = False
        await asyncio.sleep(0.4 * LEASE_SECONDS)
        proxy.clear_up()
        jobs = [(await client.get(f"/jobs/{job_id}?wait=30"))[1] for job_id in ids]

    assert [(job["status"], job["retryCount"]) for job in jobs] == [("completed", 1)] * 30
    assert set(witness.began().values()) == {1}


async def test_while_the_database_is_silent_callers_get_503_within_ten_seconds_and_the_process_lives(
    http: aiohttp.ClientSession, service: ServiceProcess, proxy: Proxy
) -> None:
    client = Client(http, service.url)
    proxy.stall()

    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            client.post("/jobs", {"type": "work"}),
            client.get("/jobs"),
            client.get("/jobs/none"),
            client.get("/readyz"),
            client.get("/livez"),
        )

    assert [status for status, _ in answers] == [503, 503, 503, 503, 200]
    proxy.clear_up()
    await eventually(_ready(client), seconds=30, what="the service is ready again")


def _is_renewal(message: Message) -> bool:
    return message.command == "update" and message.says("$max") and message.says("lease.expiresAt")


def _ready(client: Client) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        return (await client.get("/readyz"))[0] == 200

    return ready
