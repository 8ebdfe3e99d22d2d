"""Failing on purpose, on a real server: what a job goes through, and that nothing of it happens unless asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from engines import Engines, finished

from jobqueue.errors import InvalidJob
from jobqueue.job import Backoff, Fault, Job, Status
from jobqueue.retry import BackoffPolicy
from jobqueue.service import JobService, NewJob
from jobqueue.tasks import Registry, TaskContext


@pytest.fixture
def runs() -> Counter[str]:
    """How often the task of each job ran to its end."""
    return Counter()


@pytest.fixture
def registry(runs: Counter[str]) -> Registry:
    registry = Registry()

    @registry.task("work")
    async def work(context: TaskContext) -> str:
        runs[context.job.id] += 1
        return "done"

    @registry.task("patient", backoff=BackoffPolicy(base_seconds=1_000, max_seconds=1_000))
    async def patient() -> None:
        raise ValueError("no luck")

    return registry


@pytest.fixture
async def service(engines: Engines, registry: Registry) -> JobService:
    return await engines.start(registry, faults=True)


async def end(service: JobService, fault: Fault, max_retries: int = 4) -> Job:
    return await finished(
        service, await service.enqueue(NewJob(type="work", fault=fault, max_retries=max_retries, tags=["t"]))
    )


def errors_of(job: Job) -> list[tuple[int, str]]:
    return [(error.attempt, error.type) for error in job.errors or ()]


async def test_the_first_attempts_fail_and_the_next_one_succeeds(service: JobService, runs: Counter[str]) -> None:
    job = await end(service, Fault(failures=2))

    assert (job.status, job.retry_count, job.result) == (Status.COMPLETED, 3, "done")
    assert errors_of(job) == [(1, "InjectedFault"), (2, "InjectedFault")]
    assert runs[job.id] == 1


async def test_more_failures_than_attempts_lead_to_the_dead_letters_and_a_redrive_keeps_their_errors(
    service: JobService, runs: Counter[str]
) -> None:
    job = await end(service, Fault(failures=2), max_retries=2)
    assert (job.status, job.retry_count) == (Status.FAILED, 2)

    await service.redrive(job.id)
    again = await finished(service, job)

    assert errors_of(again) == [(1, "InjectedFault"), (2, "InjectedFault")] * 2
    assert (again.status, again.retry_count, again.redrives) == (Status.FAILED, 2, 1)
    assert runs[job.id] == 0


@pytest.mark.parametrize(("probability", "status"), [(1.0, Status.FAILED), (0.0, Status.COMPLETED)])
async def test_attempts_fail_by_chance(service: JobService, probability: float, status: Status) -> None:
    assert (await end(service, Fault(probability=probability), max_retries=2)).status is status


async def test_an_attempt_that_crashes_is_taken_back_when_its_lease_has_expired(
    service: JobService, runs: Counter[str]
) -> None:
    job = await end(service, Fault(failures=1, crash=True))

    assert (job.status, job.retry_count) == (Status.COMPLETED, 2)
    assert errors_of(job) == [(1, "LeaseExpired")]
    assert runs[job.id] == 1


async def test_an_attempt_that_loses_its_lease_has_done_its_work_and_it_is_done_again(
    service: JobService, runs: Counter[str]
) -> None:
    job = await end(service, Fault(failures=1, lose_lease=True))

    assert (job.status, job.retry_count) == (Status.COMPLETED, 2)
    assert errors_of(job) == [(1, "LeaseExpired")]
    assert runs[job.id] == 2


async def test_a_delay_counts_towards_the_time_limit(service: JobService, runs: Counter[str]) -> None:
    new = NewJob(type="work", fault=Fault(delay_seconds=60), timeout_seconds=0.05, max_retries=1)

    job = await finished(service, await service.enqueue(new))

    assert errors_of(job) == [(1, "TimeoutError")]
    assert runs[job.id] == 0


async def test_the_setting_is_for_jobs_without_a_fault_of_their_own(engines: Engines, registry: Registry) -> None:
    service = await engines.start(registry, faults=True, fault=Fault(failures=1))

    plain = await finished(service, await service.enqueue(NewJob(type="work")))
    own = await end(service, Fault(probability=0.0))

    assert errors_of(plain) == [(1, "InjectedFault")]
    assert errors_of(own) == []


async def test_a_process_that_does_not_inject_refuses_faults_and_takes_no_notice_of_stored_ones(
    engines: Engines, registry: Registry
) -> None:
    injecting = await engines.start(faults=True)  # takes jobs only
    service = await engines.start(registry)
    with pytest.raises(InvalidJob, match="JOBQUEUE_FAULTS"):
        await service.enqueue(NewJob(type="work", fault=Fault(failures=1)))
    refused, taken = await service.enqueue_many([NewJob(type="work", fault=Fault(failures=1)), NewJob(type="work")])

    job = await finished(service, await injecting.enqueue(NewJob(type="work", fault=Fault(failures=1))))

    assert isinstance(refused, InvalidJob)
    assert isinstance(taken, Job)
    assert (job.status, job.retry_count, job.fault) == (Status.COMPLETED, 1, {"failures": 1})


async def test_a_fault_that_somebody_mistyped_in_the_database_is_no_fault(
    engines: Engines, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await engines.start(registry, faults=True)
    monkeypatch.setattr(Fault, "model_dump", lambda *_, **__: {"failures": "many"})

    assert (await end(service, Fault(failures=1))).retry_count == 1


async def test_a_task_and_a_job_have_back_offs_of_their_own(service: JobService) -> None:
    """The task waits for a thousand seconds, which the job cuts short."""
    own = Backoff(base_seconds=0.01, max_seconds=0.02)

    patient = await service.enqueue(NewJob(type="patient"))
    impatient = await finished(service, await service.enqueue(NewJob(type="patient", backoff=own)))

    assert (impatient.status, impatient.retry_count, impatient.backoff) == (Status.FAILED, 3, own)
    waiting = await service.get(patient.id)
    assert (waiting.status, waiting.retry_count) == (Status.SCHEDULED, 1)
    assert 500 <= (waiting.run_at - waiting.updated_at).total_seconds() <= 1_000
