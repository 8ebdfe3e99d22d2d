"""Many jobs in one call are stored in portions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import cast

from hand_clock import HandClock
from memory_jobs import MemoryJobs, SilentDispatcher

from jobqueue.clock import Identifiers
from jobqueue.errors import DuplicateJob, JobQueueError
from jobqueue.following import Followers
from jobqueue.job import Job
from jobqueue.repository import JobRepository
from jobqueue.service import PORTION, JobService, NewJob


class Watched(MemoryJobs):
    """Remembers the sizes of what is stored together, and how many jobs were made when the first of it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.portions: list[int] = []
        self.made = 0
        self.made_when_sent = 0

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Job | JobQueueError]:
        self.portions.append(len(jobs))
        await asyncio.sleep(0)  # as a group commit: it goes in the next turn of the event loop
        self.made_when_sent = self.made_when_sent or self.made
        return await super().insert_many(jobs)

    def max_retries(self, job_type: str) -> int:
        self.made += 1
        return 3


class Told(SilentDispatcher):
    """Remembers how many jobs it was offered at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[int] = []

    def offer(self, jobs: Sequence[Job]) -> None:
        self.offered.append(len(jobs))


def service_of(jobs: Watched, dispatcher: Told) -> JobService:
    port = cast(JobRepository, jobs)
    return JobService(
        port,
        dispatcher,
        clock=HandClock(),
        identifiers=Identifiers(Random(1)),
        followers=Followers(port),
        max_retries_of=jobs.max_retries,
    )


def some(count: int) -> list[NewJob]:
    return [NewJob(id=f"job-{number}") for number in range(count)]


async def test_many_jobs_are_stored_and_offered_in_portions_and_answered_in_order() -> None:
    jobs, dispatcher = Watched(), Told()
    await jobs.insert(Job(id=some(PORTION + 2)[-1].id))

    answers = await service_of(jobs, dispatcher).enqueue_many(some(2 * PORTION + 3))

    assert [answer.id for answer in answers if isinstance(answer, Job)] == [
        new.id for new in some(2 * PORTION + 3) if new.id != f"job-{PORTION + 1}"
    ]
    assert isinstance(answers[PORTION + 1], DuplicateJob)
    assert jobs.portions == [PORTION, PORTION, 3]
    assert dispatcher.offered == [PORTION, PORTION - 1, 3]


async def test_a_portion_is_on_its_way_before_the_next_is_made() -> None:
    jobs = Watched()

    await service_of(jobs, Told()).enqueue_many(some(3 * PORTION))

    assert jobs.made_when_sent == PORTION
