"""The whole engine on a real server: what one process does with jobs, and what several do with the same ones."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Int64
from engines import Engines, finished
from observers import eventually
from pydantic import BaseModel
from pymongo import MongoClient

from jobqueue import app, leases
from jobqueue.errors import IllegalMove
from jobqueue.job import Job, Progress, Status
from jobqueue.service import NewJob
from jobqueue.settings import Settings
from jobqueue.tasks import PermanentFailure, Registry, RetryLater, Snooze, TaskContext

VARIANTS = [
    pytest.param({"driver": "motor"}, id="motor"),
    pytest.param({"driver": "pymongo"}, id="pymongo"),
    pytest.param({"driver": "motor", "claim": "single"}, id="single-claims"),
]


class Sum(BaseModel):
    left: int
    right: int


@pytest.mark.parametrize("variant", VARIANTS)
async def test_n_claimers_over_m_jobs_run_each_once(engines: Engines, variant: dict[str, str]) -> None:
    runs: Counter[str] = Counter()
    registry = Registry()

    @registry.task("count")
    async def count(context: TaskContext) -> None:
        runs[context.job.id] += 1

    # Nobody dies here, however slow the machine is.
    services = [await engines.start(registry, lease_seconds=60, **variant) for _ in range(3)]
    jobs = await services[0].enqueue_many([NewJob(type="count") for _ in range(300)])
    ended = [await finished(services[0], job) for job in jobs if isinstance(job, Job)]

    assert len(ended) == 300
    assert set(runs.values()) == {1}
    assert {(job.status, job.retry_count) for job in ended} == {(Status.COMPLETED, 1)}


async def test_a_result_and_a_typed_payload(engines: Engines) -> None:
    registry = Registry()

    @registry.task("add")
    async def add(payload: Sum) -> dict[str, int]:
        return {"sum": payload.left + payload.right}

    service = await engines.start(registry)

    ended = await finished(service, await service.enqueue(NewJob(type="add", payload={"left": 2, "right": 3})))
    refused = await finished(service, await service.enqueue(NewJob(type="add", payload={"left": "x"})))

    assert ended.result == {"sum": 5}
    assert (refused.status, refused.retry_count) == (Status.FAILED, 1)
    assert refused.errors is not None
    assert "/right" in refused.errors[0].message


async def test_retry_permanent_failure_and_snooze(engines: Engines) -> None:
    registry = Registry()
    snoozed: Counter[str] = Counter()

    @registry.task("flaky")
    async def flaky(context: TaskContext) -> str:
        if context.attempt < 3:
            raise RetryLater("not yet", after_seconds=0.05)
        return "done"

    @registry.task("hopeless")
    async def hopeless() -> None:
        raise PermanentFailure("never")

    @registry.task("early")
    async def early(context: TaskContext) -> int:
        snoozed[context.job.id] += 1
        if snoozed[context.job.id] < 3:
            raise Snooze(0.05)
        return context.attempt

    service = await engines.start(registry)
    flaky_job, hopeless_job, early_job = [
        await finished(service, await service.enqueue(NewJob(type=name))) for name in ("flaky", "hopeless", "early")
    ]

    assert (flaky_job.status, flaky_job.retry_count, flaky_job.result) == (Status.COMPLETED, 3, "done")
    assert (hopeless_job.status, hopeless_job.retry_count) == (Status.FAILED, 1)
    assert (early_job.status, early_job.retry_count, early_job.result) == (Status.COMPLETED, 1, 1)


async def test_a_type_without_a_task_fails_with_the_names_of_the_known_ones(engines: Engines) -> None:
    registry = Registry()

    @registry.task("known")
    async def known() -> None: ...

    service = await engines.start(registry)

    ended = await finished(service, await service.enqueue(NewJob(type="unknown", max_retries=2)))

    assert (ended.status, ended.retry_count) == (Status.FAILED, 2)
    assert ended.errors is not None
    assert "known" in ended.errors[-1].message


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_job_that_cannot_be_read_fails_with_the_reason_and_its_slot_is_free_again(
    engines: Engines, settings: Settings, server_uri: str, variant: dict[str, str]
) -> None:
    registry = Registry()

    @registry.task("simple")
    async def simple() -> None: ...

    service = await engines.start(registry, workers=1, **variant)
    like = await finished(service, await service.enqueue(NewJob(type="simple")))
    odd = {"type": "simple", "queue": "default", "status": "pending", "priority": 0, "timeoutSeconds": "a while"}
    times = dict.fromkeys(("runAt", "createdAt", "updatedAt"), like.run_at)
    with MongoClient[dict[str, Any]](server_uri) as client:
        jobs = client[settings.database].jobs
        jobs.insert_one({"_id": "odd", "seq": Int64(1), "insertId": "odd"} | odd | times)
        await service.wait("odd", seconds=30)
        stored = jobs.find_one("odd") or {}
    after = await finished(service, await service.enqueue(NewJob(type="simple")))

    assert (stored["status"], stored["retryCount"], after.status) == ("failed", 1, Status.COMPLETED)
    [error] = stored["errors"]
    assert (error["type"], "timeoutSeconds" in error["message"]) == ("Unreadable", True)


async def test_a_job_runs_when_it_is_due_and_not_before(engines: Engines) -> None:
    registry = Registry()

    @registry.task("later")
    async def later() -> None: ...

    service = await engines.start(registry, poll_seconds=30)

    job = await service.enqueue(NewJob(type="later", delay_seconds=0.7))
    ended = await finished(service, job)

    assert job.status is Status.SCHEDULED
    assert ended.started_at is not None
    assert ended.started_at >= job.run_at


async def test_an_attempt_that_takes_too_long_is_stopped_and_tried_again(engines: Engines) -> None:
    registry = Registry()

    @registry.task("slow", timeout=0.2)
    async def slow(context: TaskContext) -> int:
        if context.attempt == 1:
            await asyncio.sleep(60)
        return context.attempt

    service = await engines.start(registry)

    ended = await finished(service, await service.enqueue(NewJob(type="slow")))

    assert (ended.status, ended.result) == (Status.COMPLETED, 2)
    assert ended.errors is not None
    assert ended.errors[0].type == "TimeoutError"


async def test_a_running_job_is_cancelled_from_another_process(engines: Engines) -> None:
    registry = Registry()
    began = asyncio.Event()

    @registry.task("long")
    async def long() -> None:
        began.set()
        await asyncio.sleep(60)

    await engines.start(registry)
    elsewhere = await engines.start()
    job = await elsewhere.enqueue(NewJob(type="long"))
    async with asyncio.timeout(30):
        await began.wait()

    asked = await elsewhere.cancel(job.id)
    ended = await finished(elsewhere, job)

    assert asked.status is Status.PROCESSING
    assert asked.cancel_requested_at is not None
    assert (ended.status, ended.lease) == (Status.CANCELLED, None)
    with pytest.raises(IllegalMove):
        await elsewhere.cancel(job.id)


async def test_a_failed_job_put_back_runs_as_if_new_and_keeps_its_history(engines: Engines) -> None:
    registry = Registry()
    broken = threading.Event()
    broken.set()

    @registry.task("depends")
    async def depends() -> str:
        if broken.is_set():
            raise RuntimeError("down")
        return "up"

    service = await engines.start(registry)
    failed = await finished(service, await service.enqueue(NewJob(type="depends", max_retries=1)))
    broken.clear()

    await service.redrive(failed.id)
    ended = await finished(service, failed)

    assert failed.status is Status.FAILED
    assert (ended.status, ended.retry_count, ended.redrives, ended.result) == (Status.COMPLETED, 1, 1, "up")
    assert ended.errors is not None
    assert [error.message for error in ended.errors] == ["down"]


async def test_a_plain_function_runs_in_a_thread_and_its_overrun_keeps_its_slot(engines: Engines) -> None:
    registry = Registry()
    release, threads = threading.Event(), []

    @registry.task("plain", timeout=0.2, max_retries=10)  # a busy machine may need that long to begin an attempt
    def plain(context: TaskContext) -> int:
        threads.append(threading.current_thread())
        if context.attempt == 1:
            release.wait(30)
        return context.attempt

    service = await engines.start(registry, workers=1)
    job = await service.enqueue(NewJob(type="plain"))

    async def failed_once() -> bool:
        return bool((await service.get(job.id)).errors)

    await eventually(failed_once, seconds=30, what="the first attempt timed out")
    waiting = await service.enqueue(NewJob(type="plain", priority=9, payload=1))
    assert (await service.wait(waiting.id, seconds=0.5)).status is Status.PENDING
    release.set()

    assert (await finished(service, job)).result in range(2, 11)
    assert threading.main_thread() not in threads


async def test_progress_is_seen_while_the_job_runs(engines: Engines) -> None:
    registry = Registry()
    seen = asyncio.Event()

    @registry.task("steps")
    async def steps(context: TaskContext) -> None:
        await context.progress(40, "half way, nearly")
        await seen.wait()

    service = await engines.start(registry)
    job = await service.enqueue(NewJob(type="steps"))

    async def shown() -> bool:
        return (await service.get(job.id)).progress == Progress(percent=40, message="half way, nearly")

    await eventually(shown, seconds=30, what="progress of a running job")
    seen.set()

    assert (await finished(service, job)).status is Status.COMPLETED


async def test_whoever_sees_a_job_finished_sees_the_last_of_its_progress(engines: Engines) -> None:
    registry = Registry()
    seen = asyncio.Event()

    @registry.task("steps")
    async def steps(context: TaskContext) -> None:
        context.progress(10, "begun")
        await seen.wait()
        context.progress(100, "done")

    service = await engines.start(registry)
    job = await service.enqueue(NewJob(type="steps"))

    async def shown() -> bool:
        return (await service.get(job.id)).progress is not None

    await eventually(shown, seconds=30, what="progress of a running job")
    seen.set()

    assert (await finished(service, job)).progress == Progress(percent=100, message="done")


async def test_what_cannot_be_stored_as_a_result_fails_for_good(engines: Engines) -> None:
    registry = Registry()

    @registry.task("odd")
    async def odd() -> dict[str, int]:
        return {"huge": 2**80}

    @registry.task("big")
    async def big() -> str:
        return "x" * 100_000

    service = await engines.start(registry)

    odd_job = await finished(service, await service.enqueue(NewJob(type="odd")))
    big_job = await finished(service, await service.enqueue(NewJob(type="big")))

    assert (odd_job.status, odd_job.retry_count) == (Status.FAILED, 1)
    assert big_job.result == {"truncated": True, "bytes": 100_002}


async def test_every_line_of_work_shares_the_slots_of_the_pool(engines: Engines) -> None:
    """Never more jobs at once than there are slots, also when far more are waiting."""
    registry = Registry()
    running, most = 0, 0

    @registry.task("count")
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    service = await engines.start(registry, workers=7)
    jobs = await service.enqueue_many([NewJob(type="count") for _ in range(200)])
    for job in jobs:
        assert isinstance(job, Job)
        await finished(service, job)

    assert most == 7


async def test_a_process_serves_only_its_queues(engines: Engines) -> None:
    registry = Registry()

    @registry.task("any")
    async def anything() -> None: ...

    service = await engines.start(registry, queues=("mail",))
    other = await service.enqueue(NewJob(type="any", queue="other"))
    mail = await service.enqueue(NewJob(type="any", queue="mail"))

    assert (await finished(service, mail)).status is Status.COMPLETED
    assert (await service.wait(other.id, seconds=1)).status is Status.PENDING
    everything = await engines.start(registry)
    assert (await finished(everything, other)).status is Status.COMPLETED


async def test_leases_and_due_times_follow_the_servers_clock(engines: Engines) -> None:
    registry = Registry()

    @registry.task("any")
    async def anything() -> None: ...

    service = await engines.start(registry)

    job = await service.enqueue(NewJob(type="any"))

    assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=30)


async def test_what_has_its_grace_period_keeps_its_lease(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that is. (After a second without a turn of the event loop leases are given up here.)"""
    monkeypatch.setattr(leases, "LOOP_DEATH_SECONDS", 1.0)
    monkeypatch.setattr(app, "TICK_SECONDS", 0.1)
    registry, begun, may_end = Registry(), asyncio.Event(), asyncio.Event()

    @registry.task("long")
    async def long() -> None:
        begun.set()
        await may_end.wait()

    engine = await engines.start_engine(registry, lease_seconds=2.0)
    job = await engine.service.enqueue(NewJob(type="long"))
    await begun.wait()

    draining = asyncio.create_task(engine.drain(60))
    renewed_since = engine.clock.now() + timedelta(seconds=1.0 + 2.0 + 0.5)

    async def renewed() -> bool:
        lease = (await engine.service.get(job.id)).lease
        return lease is not None and lease.expires_at > renewed_since

    await eventually(renewed, seconds=20, what="the lease is renewed long after the stop began")
    may_end.set()
    await draining
    assert (await engine.service.get(job.id)).status is Status.COMPLETED
