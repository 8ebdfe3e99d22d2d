"""What a pool writes of an attempt that did not complete, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from hand_clock import START, HandClock
from wired_pool import Wire, end, waiting, wired_pool

from jobqueue.job import AttemptError, Claim, Status
from jobqueue.leases import Notice
from jobqueue.tasks import Registry, RetryLater, Snooze


class Noting(Wire):
    """Notes what becomes of one job."""

    def __init__(self, **changes: Any) -> None:
        [job] = waiting(1)
        super().__init__([job.model_copy(update=changes)])
        self.written: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.errors: list[AttemptError] = []

    async def retry(self, claim: Claim, error: AttemptError, *, run_at: datetime, at: datetime) -> None:
        self.errors.append(error)
        self.written.put_nowait(("retry", run_at))

    async def fail(self, claim: Claim, error: AttemptError, *, at: datetime) -> None:
        self.errors.append(error)
        self.written.put_nowait(("fail", at))

    async def snooze(self, claim: Claim, *, until: datetime, at: datetime) -> None:
        self.written.put_nowait(("snooze", until))

    async def abandon(self, claim: Claim, *, at: datetime) -> None:
        self.written.put_nowait(("abandon", at))


async def retry_later() -> None:
    raise RetryLater("not yet", after_seconds=7)


async def retry_far_too_late() -> None:
    raise RetryLater("not yet", after_seconds=1e300)


async def snooze() -> None:
    raise Snooze(7)


async def run_for_ever() -> None:
    await asyncio.Event().wait()


async def outcome(wire: Noting, task: Callable[[], Awaitable[None]], scheduled: list[datetime]) -> tuple[str, Any]:
    """What is written of an attempt with this task."""
    registry = Registry()
    registry.task("noop")(task)
    pool = wired_pool(wire, registry, clock=HandClock(), on_scheduled=scheduled.append)
    poller = asyncio.create_task(pool.poller.run())
    written = await asyncio.wait_for(wire.written.get(), 20)
    await end(pool, poller)
    return written


@pytest.mark.parametrize(("task", "move"), [(retry_later, "retry"), (snooze, "snooze")])
async def test_who_asks_for_a_time_gets_it_and_the_stager_is_told(
    task: Callable[[], Awaitable[None]], move: str
) -> None:
    scheduled: list[datetime] = []

    assert await outcome(Noting(), task, scheduled) == (move, START + timedelta(seconds=7))
    assert scheduled == [START + timedelta(seconds=7)]


async def test_of_jobs_stored_for_later_the_stager_is_told_the_earliest_time() -> None:
    scheduled: list[datetime] = []
    pool = wired_pool(Wire([]), Registry(), on_scheduled=scheduled.append)
    later = [
        job.model_copy(update={"status": Status.SCHEDULED, "run_at": START + timedelta(seconds=seconds)})
        for job, seconds in zip(waiting(3), (9, 4, 6), strict=True)
    ]

    pool.offer(later)

    assert scheduled == [START + timedelta(seconds=4)]


async def test_who_asks_for_a_time_beyond_all_calendars_gets_a_late_one() -> None:
    move, run_at = await outcome(Noting(), retry_far_too_late, [])

    assert (move, run_at > START + timedelta(days=3_000)) == ("retry", True)


async def test_the_last_attempt_fails_and_its_error_tells_which_it_was_and_where() -> None:
    wire = Noting(retry_count=3, max_retries=3)

    move, _ = await outcome(wire, retry_later, [])

    assert move == "fail"
    assert [(error.attempt, error.worker_id, error.message) for error in wire.errors] == [(3, "w", "not yet")]


async def test_a_job_that_was_to_be_cancelled_when_it_was_claimed_does_not_run_on() -> None:
    move, _ = await outcome(Noting(cancel_requested_at=START), run_for_ever, [])

    assert move == "abandon"


async def test_a_job_that_runs_here_is_stopped_as_soon_as_it_is_cancelled_here() -> None:
    registry, wire, begun = Registry(), Noting(), asyncio.Event()

    @registry.task("noop")
    async def noop() -> None:
        begun.set()
        await asyncio.Event().wait()

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(begun.wait(), 20)

    [claim] = pool.running
    pool.interrupt(claim.job_id)

    assert (await asyncio.wait_for(wire.written.get(), 20))[0] == "abandon"
    await end(pool, poller)


async def test_an_attempt_that_lost_its_lease_is_stopped_and_writes_nothing() -> None:
    registry, wire, begun, stopped = Registry(), Noting(), asyncio.Event(), asyncio.Event()

    @registry.task("noop")
    async def noop() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    pool = wired_pool(wire, registry)
    poller = asyncio.create_task(pool.poller.run())
    await asyncio.wait_for(begun.wait(), 20)

    pool.notice([(claim, Notice.LOST) for claim in pool.running])
    await asyncio.wait_for(stopped.wait(), 20)
    await end(pool, poller)

    assert wire.written.empty()


async def test_a_task_does_not_run_in_the_context_of_the_request_that_brought_its_job() -> None:
    registry, wire, seen = Registry(), Noting(), asyncio.Queue[dict[str, Any]]()

    @registry.task("noop")
    async def noop() -> None:
        seen.put_nowait(structlog.contextvars.get_contextvars())

    pool = wired_pool(wire, registry)
    with structlog.contextvars.bound_contextvars(request_id="of a request"):
        poller = asyncio.create_task(pool.poller.run())
        context = await asyncio.wait_for(seen.get(), 20)
        await end(pool, poller)

    assert "request_id" not in context
