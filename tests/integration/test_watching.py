"""What operators see of several processes on one database: metrics that add up, and logs of jobs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random

import aiohttp
import pytest
from engines import finished
from observers import WITNESSED, eventually
from processes import ServiceProcess
from pydantic import SecretStr
from scraped import families_in

from jobqueue.app import Engine
from jobqueue.service import NewJob
from jobqueue.settings import Settings
from jobqueue.tasks import PermanentFailure, Registry, RetryLater, TaskContext

SCRAPER = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.task("any")
    async def anything(context: TaskContext) -> None:
        match context.payload:
            case "fail":
                raise PermanentFailure("no")
            case "retry" if context.attempt == 1:
                raise RetryLater("once more", after_seconds=0.05)

    @registry.task("talkative")
    async def talkative(context: TaskContext) -> None:
        context.log.info("begun", where=threading.current_thread().name)
        if context.attempt == 1:
            raise RetryLater("once more", after_seconds=0.05)

    @registry.task("threaded")
    def threaded(context: TaskContext) -> None:
        context.log.warning("from a thread", where=threading.current_thread().name)

    return registry


@pytest.fixture
async def engines(server_uri: str, database_name: str, registry: Registry) -> AsyncIterator[list[Engine]]:
    """Two processes' worth of engines."""
    settings = Settings(
        mongodb_uri=SecretStr(server_uri), database=database_name, poll_seconds=0.3, workers=4, queue_size=4
    )
    async with AsyncExitStack() as stack:
        started = []
        for _ in range(2):
            engine = await Engine.start(settings, stack, registry=registry, mongodb_uri=server_uri, workers=True)
            stack.push_async_callback(engine.drain, 1.0)
            started.append(engine)
        yield started


def attempts(engine: Engine) -> Counter[str]:
    """Attempts by outcome, as this engine tells a scraper."""
    body, content_type = engine.metrics.render(SCRAPER, None)
    return Counter(
        {
            sample.labels["outcome"]: int(sample.value)
            for family in families_in(body.decode(), content_type)
            for sample in family.samples
            if sample.name == "jobqueue_attempts_total"
        }
    )


async def test_totals_are_those_of_the_database_and_counters_those_of_the_process(engines: list[Engine]) -> None:
    payloads = ["fail"] * 3 + ["retry"] * 4 + ["succeed"] * 20
    Random(1).shuffle(payloads)
    service = engines[0].service
    jobs = [await service.enqueue(NewJob(type="any", payload=payload)) for payload in payloads]
    for job in jobs:
        await finished(service, job)
    await service.delete(jobs[0].id)

    async def agreed() -> bool:
        states = [await engine.service.database_state() for engine in engines]
        totals = [(each.totals.processed, each.totals.failed, each.totals.retried) for each in states]
        counted = attempts(engines[0]) + attempts(engines[1])  # which wait for answers that say what the store knows
        return totals == [(24, 3, 4)] * 2 and counted == {"completed": 24, "failed": 3, "retried": 4}

    await eventually(agreed, seconds=30, what="both processes to show the same totals, and together the same counts")


@pytest.mark.parametrize("job_type", ["talkative", "threaded"])
async def test_whoever_sees_a_job_finished_sees_what_it_logged(engines: list[Engine], job_type: str) -> None:
    service = engines[0].service

    ended = await finished(service, await service.enqueue(NewJob(type=job_type)))
    lines = await engines[1].service.logs(ended.id)

    assert [line.attempt for line in lines] == list(range(1, ended.retry_count + 1))
    assert {line.message for line in lines} == {"begun" if job_type == "talkative" else "from a thread"}
    assert ("MainThread" in {line.fields["where"] for line in lines}) == (job_type == "talkative")


async def test_a_worker_with_a_port_shows_its_metrics(server_uri: str, database_name: str) -> None:
    env = {"JOBQUEUE_MONGODB_URI": server_uri, "JOBQUEUE_DATABASE": database_name, "JOBQUEUE_PORT": "0"}
    async with (
        ServiceProcess("worker", "--tasks", WITNESSED, env=env) as worker,
        aiohttp.ClientSession() as http,
        http.get(worker.url + "/metrics", headers={"Accept": SCRAPER}) as response,
    ):
        found = families_in(await response.text(), response.content_type)
        families = {family.name: family for family in found}

    assert families["jobqueue_slots"].samples[0].value == 10
    assert families["jobqueue_database_up"].samples[0].value == 1
