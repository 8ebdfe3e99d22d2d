"""The API in front of a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web_runner import BaseRunner
from memory_jobs import MemoryJobs, ObservedFollowers, SilentDispatcher
from worker_records import worker_record

from jobqueue.api.handlers import BodyLimits
from jobqueue.api.routes import build_api
from jobqueue.api.serving import ApiRunner
from jobqueue.clock import Identifiers, ServerClock
from jobqueue.dispatch import Dispatcher
from jobqueue.following import Followers
from jobqueue.repository import JobRepository, WorkerRecord
from jobqueue.service import JobService

Client = TestClient[web.Request, web.Application]


class ApiServer(TestServer):
    """Serves as the product does."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        # That of the tests would end what a client leaves behind before it could be seen.
        return ApiRunner(self.app, **options | {"handler_cancellation": False})


@pytest.fixture
def jobs() -> MemoryJobs:
    return MemoryJobs()


@pytest.fixture
def dispatcher() -> SilentDispatcher:
    return SilentDispatcher()


@pytest.fixture
def followers(jobs: MemoryJobs) -> ObservedFollowers:
    return ObservedFollowers(cast(JobRepository, jobs))


@pytest.fixture
def make_service() -> Callable[[JobRepository, Dispatcher, Followers], JobService]:
    def make(repository: JobRepository, dispatcher: Dispatcher, followers: Followers) -> JobService:
        return JobService(
            repository,
            dispatcher,
            clock=ServerClock(),
            identifiers=Identifiers(Random(1)),
            followers=followers,
            max_retries_of=lambda job_type: 3,
        )

    return make


@pytest.fixture
def service(
    jobs: MemoryJobs,
    dispatcher: SilentDispatcher,
    followers: ObservedFollowers,
    make_service: Callable[[JobRepository, Dispatcher, Followers], JobService],
) -> JobService:
    return make_service(cast(JobRepository, jobs), dispatcher, followers)


@pytest.fixture
def limits() -> BodyLimits:
    return BodyLimits(max_payload_bytes=64 * 1024, max_bulk_bytes=1024 * 1024)


@pytest.fixture
async def client(service: JobService, limits: BodyLimits) -> AsyncIterator[Client]:
    app = build_api(service, clock=ServerClock(), limits=limits, random=Random(2))
    async with TestClient(ApiServer(app)) as client:
        yield client


@pytest.fixture
def a_worker() -> WorkerRecord:
    return worker_record("w1", slots=10, at=ServerClock().now())
