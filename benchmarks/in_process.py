"""The engine in this process, put together as the product does it, with a no-op task that counts its runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, Literal

from pydantic import SecretStr

from benchmarks.database import Database
from benchmarks.workload import NOOP
from jobqueue.app import Engine
from jobqueue.clock import ServerClock
from jobqueue.driver import connect, lease_store
from jobqueue.job import JsonValue
from jobqueue.mongo import MongoJobRepository
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.repository import Features
from jobqueue.settings import Settings
from jobqueue.tasks import Registry

Driver = Literal["motor", "pymongo"]
SLOTS = 200
GRACE_SECONDS = 60.0
MOST_PENDING = 10_000_000
"""More than any benchmark brings: what is refused is not measured."""


class Unpruned(MongoJobRepository):
    """On the embedded server the product keeps 10,000 finished jobs; here all are kept, since they are counted."""

    async def prune_excess(self, *, keep: int, limit: int) -> int:
        return 0


class Polling(Unpruned):
    """As on a server without change streams: other processes are heard of by polling only."""

    @property
    def features(self) -> Features:
        return replace(super().features, change_streams=False)


class NoOps:
    """A registry with the no-op task, and who ran."""

    def __init__(self, expected: int) -> None:
        self.registry = Registry()
        self.registry.task(NOOP)(self._run)
        self.numbers: list[int] = []
        self.all_ran = asyncio.Event()
        self._expected = expected

    async def _run(self, payload: JsonValue) -> None:
        self.numbers.append(payload["n"])
        if len(self.numbers) == self._expected:
            self.all_ran.set()


def bench_settings(database: Database, name: str, **changes: Any) -> Settings:
    """The defaults of the product, but for the slots and the length of its line: enough for full batches."""
    wanted = {"workers": SLOTS, "queue_size": 5_000, "driver": "motor", "max_pending": MOST_PENDING, **changes}
    return Settings(mongodb_uri=SecretStr(database.uri), database=name, **wanted)


@asynccontextmanager
async def running_engine(
    settings: Settings, registry: Registry, *, workers: bool, store: type[Unpruned] = Unpruned
) -> AsyncIterator[Engine]:
    """An engine at work. At the end it drains: what runs is finished and acknowledged."""
    assert settings.mongodb_uri is not None
    async with AsyncExitStack() as stack:
        metrics = PrometheusMetrics(types=registry.types if workers else None)
        engine = _engine(settings, settings.mongodb_uri.get_secret_value(), store, metrics)
        await engine.begin(stack, registry=registry, workers=workers)
        yield engine
        await engine.drain(GRACE_SECONDS)


def _engine(settings: Settings, uri: str, store: type[Unpruned], metrics: PrometheusMetrics) -> Engine:
    clock = ServerClock()
    return Engine(
        settings,
        store(connect(settings, uri), settings.database, claim_mode=settings.claim, clock=clock, observer=metrics),
        clock=clock,
        random=Random(os.urandom(16)),
        connect_leases=lambda: lease_store(settings, uri),
        metrics=metrics,
    )
