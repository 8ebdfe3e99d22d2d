"""Engines on one database, each as a process of its own would have it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from jobqueue.app import Engine
from jobqueue.job import Job
from jobqueue.service import JobService
from jobqueue.settings import Settings
from jobqueue.tasks import Registry


class Engines:
    """Starts engines as processes would, and stops them at the end of the test."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()

    async def start(self, registry: Registry | None = None, **changes: object) -> JobService:
        return (await self.start_engine(registry, **changes)).service

    async def start_engine(self, registry: Registry | None = None, **changes: object) -> Engine:
        settings = self._settings.model_copy(update=changes)
        engine = await Engine.start(
            settings,
            self._stack,
            registry=registry or Registry(),
            mongodb_uri=settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else "",
            workers=registry is not None,
        )
        self._stack.push_async_callback(engine.drain, 1.0)
        return engine

    async def aclose(self) -> None:
        await self._stack.aclose()


async def finished(service: JobService, job: Job) -> Job:
    """The job once it is finished."""
    ended = await service.wait(job.id, seconds=30)
    assert ended.finished_at is not None, f"still {ended.status}"
    return ended
