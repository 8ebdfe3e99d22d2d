"""Keys and limits that hold for all processes together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from observers import Client
from processes import ServiceProcess

Settings = Callable[..., dict[str, str]]
Start = Callable[..., Any]
REPLAYED = "Idempotent-Replayed"
PROCESSES = 3


@pytest.fixture
async def start_apis(settings_for: Settings) -> AsyncIterator[Start]:
    """Starts processes that only take jobs, on one database."""
    async with AsyncExitStack() as stack:

        async def start(**changes: str) -> list[ServiceProcess]:
            processes = [ServiceProcess("api", env=settings_for(**changes)) for _ in range(PROCESSES)]
            return [await stack.enter_async_context(process) for process in processes]

        yield start


class Answers:
    """Posts, and keeps what is answered."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.statuses: Counter[int] = Counter()
        self.replayed = 0
        self.bodies: set[bytes] = set()
        self.headers: list[Any] = []

    async def post(self, url: str, body: Any, **headers: str) -> None:
        async with self._http.post(f"{url}/jobs", json=body, headers=headers) as answer:
            self.statuses[answer.status] += 1
            self.replayed += REPLAYED in answer.headers
            self.bodies.add(await answer.read())
            self.headers.append(answer.headers)


async def test_fifty_requests_with_one_key_at_several_processes_make_one_job(
    http: aiohttp.ClientSession, start_apis: Start
) -> None:
    urls = [process.url for process in await start_apis()]
    answers, job = Answers(http), {"type": "order", "payload": {"n": 42}}
    header = {"Idempotency-Key": '"order-42"'}

    await asyncio.gather(*(answers.post(urls[n % PROCESSES], job, **header) for n in range(50)))

    assert answers.statuses == {201: 50}
    assert answers.replayed == 49
    assert len(answers.bodies) == 1
    assert len(await Client(http, urls[0]).all_jobs()) == 1


async def test_of_fifty_requests_with_one_key_in_the_body_one_is_accepted(
    http: aiohttp.ClientSession, start_apis: Start
) -> None:
    urls = [process.url for process in await start_apis()]
    answers, job = Answers(http), {"type": "order", "idempotency_key": "order-42"}

    await asyncio.gather(*(answers.post(urls[n % PROCESSES], job) for n in range(50)))

    assert answers.statuses == {201: 1, 409: 49}
    assert len(await Client(http, urls[0]).all_jobs()) == 1


async def test_of_different_requests_with_one_key_only_one_is_ever_accepted(
    http: aiohttp.ClientSession, start_apis: Start
) -> None:
    urls = [process.url for process in await start_apis()]
    answers, header = Answers(http), {"Idempotency-Key": "order-42"}

    await asyncio.gather(*(answers.post(urls[n % PROCESSES], {"payload": {"n": n // 25}}, **header) for n in range(50)))

    assert answers.statuses == {201: 25, 422: 25}
    assert answers.replayed == 24
    assert len(await Client(http, urls[0]).all_jobs()) == 1


async def test_a_job_remembers_its_key_when_the_process_that_took_it_is_killed(
    http: aiohttp.ClientSession, start_apis: Start
) -> None:
    first, second, _ = await start_apis()
    answers, job = Answers(http), {"type": "order", "delaySeconds": 3600}
    await answers.post(first.url, job, **{"Idempotency-Key": "k"})
    await first.kill()

    await answers.post(second.url, job, **{"Idempotency-Key": "k"})

    assert (answers.statuses, answers.replayed, len(answers.bodies)) == ({201: 2}, 1, 1)


async def test_all_processes_together_accept_no_more_than_the_rate(
    http: aiohttp.ClientSession, start_apis: Start
) -> None:
    urls = [process.url for process in await start_apis(RATE_LIMIT="20")]
    answers, clock = Answers(http), asyncio.get_running_loop().time
    began = clock()

    for _ in range(10):
        await asyncio.gather(*(answers.post(urls[n % PROCESSES], {"type": "a"}) for n in range(60)))

    # What a second allows at once, and what came since; the last batch of answers may have been late.
    assert 20 <= answers.statuses[201] <= 20 + 20 * (clock() - began)
    assert answers.statuses.keys() <= {201, 429}
    assert answers.statuses[429] > 0
    refused = next(each for each in answers.headers if "RateLimit" in each)
    assert int(refused["Retry-After"]) >= 1
    assert refused["RateLimit-Policy"] == '"accepted";q=20;w=1'
    assert len(await Client(http, urls[0]).all_jobs()) == answers.statuses[201]


async def test_when_too_many_wait_new_jobs_are_refused_and_every_accepted_one_is_there(
    http: aiohttp.ClientSession, start_apis: Start
) -> None:
    urls = [process.url for process in await start_apis(MAX_PENDING="30")]
    answers = Answers(http)

    for _ in range(3):
        await asyncio.gather(*(answers.post(urls[n % PROCESSES], {"type": "a"}) for n in range(60)))

    # Each process knows what the others let in as of its last count: never more than the limit by itself.
    assert 30 <= answers.statuses[201] <= 30 * PROCESSES
    assert answers.statuses.keys() == {201, 503}
    assert len(await Client(http, urls[0]).all_jobs()) == answers.statuses[201]
