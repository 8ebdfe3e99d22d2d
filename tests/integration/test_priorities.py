"""Higher priority first, strictly: whichever process took a job, and whichever runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any, cast

import pytest

from jobqueue.app import Engine
from jobqueue.clock import ServerClock
from jobqueue.driver import connect, lease_store
from jobqueue.job import Candidate, Job
from jobqueue.mongo import MongoJobRepository
from jobqueue.repository import JobRepository, Window
from jobqueue.service import JobService, NewJob
from jobqueue.settings import Settings
from jobqueue.tasks import Registry, TaskContext

PROCESSES = 3


class Watched:
    """A repository that tells how often its process has looked at the head of the queue since it was asked to."""

    def __init__(self, jobs: MongoJobRepository) -> None:
        self._jobs = jobs
        self._looks = 0
        self._looked = asyncio.Condition()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    async def candidates(self, queues: Sequence[str], *, after: Candidate | None, limit: int) -> Window:
        window = await self._jobs.candidates(queues, after=after, limit=limit)
        if after is None:
            async with self._looked:
                self._looks += 1
                self._looked.notify_all()
        return window

    async def has_looked(self) -> None:
        """Return after a look that began after this call."""
        async with self._looked:
            last = self._looks + 2
            await self._looked.wait_for(lambda: self._looks >= last)


class Fleet:
    """Processes with one slot each, held by a blocker until `go`."""

    def __init__(self) -> None:
        self.services: list[JobService] = []
        self.watched: list[Watched] = []
        self.began: list[str] = []
        self.held = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.all_began = asyncio.Event()
        self.expected = 0
        self.enqueued_meanwhile: list[Job] = []

    def registry(self) -> Registry:
        """The tasks of the process that is started next."""
        registry, number = Registry(), len(self.services)

        @registry.task("hold")
        async def hold() -> None:
            self.held.release()
            await self.go.wait()

        @registry.task("mark")
        async def mark(context: TaskContext) -> None:
            self.began.append(context.job.id)
            if len(self.began) == self.expected:
                self.all_began.set()

        @registry.task("mark-and-enqueue")
        async def mark_and_enqueue(context: TaskContext) -> None:
            self.began.append(context.job.id)
            new = NewJob(type="mark", priority=context.job.priority - 1)
            self.enqueued_meanwhile.append(await self.services[number].enqueue(new))

        return registry

    async def start(self, settings: Settings, uri: str, stack: AsyncExitStack) -> None:
        clock = ServerClock()
        watched = Watched(MongoJobRepository(connect(settings, uri), settings.database, clock=clock))
        engine = Engine(
            settings,
            cast(JobRepository, watched),
            clock=clock,
            random=Random(os.urandom(16)),
            connect_leases=lambda: lease_store(settings, uri),
        )
        await engine.begin(stack, registry=self.registry(), workers=True)
        stack.push_async_callback(engine.drain, 1.0)
        self.services.append(engine.service)
        self.watched.append(watched)

    async def hold_every_slot(self) -> None:
        for service in self.services:
            await service.enqueue(NewJob(type="hold", priority=1_000))
        for _ in self.services:
            await self.held.acquire()

    async def run_all(self, jobs: Sequence[Job]) -> list[str]:
        """Let the jobs run once every process has looked; returns their ids in the order in which they began."""
        self.expected = self.expected or len(jobs)
        for watched in self.watched:
            await watched.has_looked()
        self.go.set()
        async with asyncio.timeout(60):
            await self.all_began.wait()
        return self.began


@pytest.fixture
async def fleet(settings: Settings, server_uri: str) -> AsyncIterator[Fleet]:
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        for _ in range(PROCESSES):
            await fleet.start(settings.model_copy(update={"workers": 1}), server_uri, stack)
        await fleet.hold_every_slot()
        yield fleet


def overtaken(began: Sequence[str], jobs: Sequence[Job]) -> int:
    """The most jobs of higher priority that had not begun when another one did."""
    priority: dict[str, int] = {job.id: job.priority for job in jobs}
    return max(
        sum(priority[later] > priority[job_id] for later in began[place + 1 :]) for place, job_id in enumerate(began)
    )


async def test_jobs_begin_by_priority_whichever_process_took_them(fleet: Fleet) -> None:
    """Each process has ids of its own at hand; those of the others must come between them."""
    random = Random(3)
    jobs = [
        await random.choice(fleet.services).enqueue(NewJob(type="mark", priority=random.randrange(-1000, 1000)))
        for _ in range(60)
    ]

    began = await fleet.run_all(jobs)

    # Two processes may begin, in any order, what they claimed at the same time.
    assert overtaken(began, jobs) < PROCESSES


async def test_a_late_urgent_job_at_one_process_goes_before_all_that_another_has_at_hand(fleet: Fleet) -> None:
    first, *_, last = fleet.services
    many = [await first.enqueue(NewJob(type="mark", priority=number % 10)) for number in range(50)]
    for watched in fleet.watched:
        await watched.has_looked()

    urgent = [await last.enqueue(NewJob(type="mark", priority=100 + number)) for number in range(5)]

    began = await fleet.run_all([*many, *urgent])
    assert overtaken(began, [*many, *urgent]) < PROCESSES
    assert set(began[: 5 + PROCESSES - 1]) >= {job.id for job in urgent}


async def test_priority_holds_when_more_waits_than_a_process_keeps_at_hand(settings: Settings, server_uri: str) -> None:
    fleet, random = Fleet(), Random(5)
    async with AsyncExitStack() as stack:
        for _ in range(PROCESSES):
            await fleet.start(settings.model_copy(update={"workers": 1, "queue_size": 5}), server_uri, stack)
        await fleet.hold_every_slot()
        new = [NewJob(type="mark", priority=random.randrange(4)) for _ in range(80)]
        jobs = [job for job in await fleet.services[0].enqueue_many(new) if isinstance(job, Job)]

        began = await fleet.run_all(jobs)

        assert overtaken(began, jobs) < PROCESSES


async def test_a_job_that_a_process_has_just_taken_does_not_go_before_more_urgent_ones_in_the_store(
    settings: Settings, server_uri: str
) -> None:
    """Each job brings a less urgent one at its own process, which has a free slot then and few ids at hand."""
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        for _ in range(PROCESSES):
            await fleet.start(settings.model_copy(update={"workers": 1, "queue_size": 2}), server_uri, stack)
        await fleet.hold_every_slot()
        new = [NewJob(type="mark-and-enqueue", priority=1)] * 60
        jobs = [job for job in await fleet.services[0].enqueue_many(new) if isinstance(job, Job)]
        fleet.expected = 2 * len(jobs)

        began = await fleet.run_all(jobs)

        assert overtaken(began, [*jobs, *fleet.enqueued_meanwhile]) < PROCESSES
