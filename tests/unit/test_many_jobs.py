"""Many jobs in one call are stored in portions; those of many calls at once are stored together. Workers are told of
what is stored or put back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any, cast

import pytest
from hand_clock import START, HandClock
from memory_jobs import MemoryJobs, SilentDispatcher

from jobqueue.admission import AdmissionLimits
from jobqueue.clock import Identifiers
from jobqueue.errors import DuplicateJob, JobQueueError, QueueFull, RateLimited, ShuttingDown, Unavailable
from jobqueue.following import Followers
from jobqueue.job import Candidate, Job, Status
from jobqueue.repository import JobFilter, JobRepository
from jobqueue.service import NO_LIMITS, PORTION, JobService, NewJob


class Watched(MemoryJobs):
    """Remembers the sizes of what is stored together, and how many jobs were made when the first of it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.portions: list[int] = []
        self.arrived = asyncio.Event()
        self.made = 0
        self.made_when_sent = 0

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Job | JobQueueError]:
        self.portions.append(len(jobs))
        self.arrived.set()
        await asyncio.sleep(0)  # as a group commit: it goes in the next turn of the event loop
        self.made_when_sent = self.made_when_sent or self.made
        return await super().insert_many(jobs)

    def max_retries(self, job_type: str) -> int:
        self.made += 1
        return 3


class Told(SilentDispatcher):
    """Remembers how many jobs it was offered at a time, and which that were there already."""

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[int] = []
        self.pending_again: list[str] = []

    def offer(self, jobs: Sequence[Job]) -> None:
        self.offered.append(len(jobs))

    def offer_candidates(self, candidates: Sequence[Candidate]) -> None:
        self.pending_again += [candidate.id for candidate in candidates]


def service_of(jobs: Watched, dispatcher: Told, *, limits: AdmissionLimits = NO_LIMITS) -> JobService:
    port = cast(JobRepository, jobs)
    return JobService(
        port,
        dispatcher,
        clock=HandClock(),
        identifiers=Identifiers(Random(1)),
        followers=Followers(port),
        max_retries_of=jobs.max_retries,
        limits=limits,
    )


def some(count: int) -> list[NewJob]:
    return [NewJob(id=f"job-{number}") for number in range(count)]


async def test_many_jobs_are_stored_and_offered_in_portions_and_answered_in_order() -> None:
    jobs, dispatcher = Watched(), Told()
    await jobs.insert_many([Job(id=some(PORTION + 2)[-1].id)])
    jobs.portions.clear()

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


async def test_jobs_of_calls_in_one_turn_are_stored_together_and_each_caller_gets_its_own_answer() -> None:
    jobs, dispatcher = Watched(), Told()
    service = service_of(jobs, dispatcher)
    new = [*some(3), NewJob(id="job-1")]

    answers = await asyncio.gather(*(service.enqueue(each) for each in new), return_exceptions=True)

    assert [answer.id for answer in answers if isinstance(answer, Job)] == ["job-0", "job-1", "job-2"]
    assert isinstance(answers[3], DuplicateJob)
    assert jobs.portions == [4]
    assert dispatcher.offered == [3]


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [(AdmissionLimits(pending=2), QueueFull), (AdmissionLimits(a_second=2), RateLimited)],
    ids=["depth", "rate"],
)
async def test_of_calls_in_one_turn_as_many_get_in_as_there_is_room_for(
    limits: AdmissionLimits, refusal: type[Exception]
) -> None:
    jobs = Watched()
    service = service_of(jobs, Told(), limits=limits)

    answers = await asyncio.gather(*(service.enqueue(new) for new in some(4)), return_exceptions=True)

    assert set(jobs.jobs) == {"job-0", "job-1"}
    assert [type(answer) for answer in answers] == [Job, Job, refusal, refusal]


class Forgetful(Watched):
    """Its meter is read once."""

    async def read_meter(self, name: str) -> int:
        if self.meters:
            raise Unavailable("no answer")
        return await super().read_meter(name)


async def test_of_calls_in_one_turn_each_is_told_what_became_of_its_own_job() -> None:
    jobs = Forgetful()
    service = service_of(jobs, Told(), limits=AdmissionLimits(a_second=40))  # and two at a time out of the meter

    answers = await asyncio.gather(*map(service.enqueue, some(41)), return_exceptions=True)

    assert {answer.id for answer in answers if isinstance(answer, Job)} == jobs.jobs.keys()
    assert len(jobs.jobs) == 2
    assert {type(answer) for answer in answers} == {Job, Unavailable}


async def test_many_jobs_of_one_call_get_in_together_or_not_at_all() -> None:
    jobs = Watched()

    with pytest.raises(QueueFull):
        await service_of(jobs, Told(), limits=AdmissionLimits(pending=3)).enqueue_many(some(4))

    assert jobs.jobs == {}


async def test_workers_are_told_of_what_is_put_back() -> None:
    jobs, dispatcher = Watched(), Told()
    service = service_of(jobs, dispatcher)
    for new in some(3):
        await service.enqueue(new)
        jobs.put(str(new.id), status=Status.FAILED)

    await service.redrive("job-0")
    await service.redrive_many(JobFilter(status=Status.FAILED), limit=10)

    assert sorted(dispatcher.pending_again) == ["job-0", "job-1", "job-2"]


@pytest.mark.parametrize("when", [{"run_at": START + timedelta(microseconds=1_234)}, {"delay_seconds": 0.001_234}])
async def test_a_job_has_the_time_that_the_store_will_give_back(when: dict[str, Any]) -> None:
    assert (await service_of(Watched(), Told()).enqueue(NewJob(**when))).run_at == START + timedelta(milliseconds=1)


async def test_a_call_does_not_wait_for_those_before_it() -> None:
    jobs = Watched()
    jobs.holding = asyncio.Event()
    service = service_of(jobs, Told())
    first, second = some(2)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for new in (first, second):
            jobs.arrived.clear()
            group.create_task(service.enqueue(new))
            await jobs.arrived.wait()
        assert jobs.portions == [1, 1]
        jobs.holding.set()


async def test_a_caller_that_is_gone_changes_nothing_for_the_others() -> None:
    jobs = Watched()
    service = service_of(jobs, Told())
    gone, here = [asyncio.ensure_future(service.enqueue(new)) for new in some(2)]
    await asyncio.sleep(0)

    gone.cancel()

    assert (await here).id == "job-1"
    assert jobs.portions == [2]


async def test_closing_waits_until_everything_is_answered_and_takes_nothing_more() -> None:
    jobs = Watched()
    service = service_of(jobs, Told())
    asked = asyncio.ensure_future(service.enqueue(NewJob(id="job-0")))
    await asyncio.sleep(0)

    await service.aclose()

    assert set(jobs.jobs) == {"job-0"}
    assert (await asked).id == "job-0"
    with pytest.raises(ShuttingDown):
        await service.enqueue(NewJob())
