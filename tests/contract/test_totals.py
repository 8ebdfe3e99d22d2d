"""Totals: every accepted job counts once, whatever became of it since, and nothing counts twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bench import BOOM, NOW, SECOND, Bench

from jobqueue.errors import Unavailable
from jobqueue.job import Status
from jobqueue.mongo import MongoJobRepository
from jobqueue.mongo import counters as counters_module
from jobqueue.mongo.counters import FOLD_AFTER, MAX_FOLDED
from jobqueue.repository import JobFilter, Totals

LATER = timedelta(days=1)


def accepted(totals: Totals) -> int:
    """How many jobs the totals tell of."""
    return sum(totals.present.values()) + sum(totals.removed.values())


@pytest.fixture
def counters(bench: Bench) -> Any:
    """The raw collection."""
    return bench.raw.database["counters"]


@pytest.fixture
def another(bench: Bench, client: Any, repository_on: Callable[..., MongoJobRepository]) -> MongoJobRepository:
    """The repository of another process on the same database; it goes with the bench's client."""
    return repository_on(client, bench.raw.database.name, bench.clock)


async def totals(bench: Bench) -> Totals:
    """As they are now, not as they were a second ago."""
    bench.clock.move(SECOND * 2)
    return await bench.jobs.totals()


async def test_an_empty_database_has_totals_of_nothing(bench: Bench) -> None:
    found = await totals(bench)

    assert (found.processed, found.failed, found.cancelled, found.retried, found.idempotency_keys) == (0, 0, 0, 0, 0)
    assert accepted(found) == 0


async def test_jobs_stay_counted_when_they_are_pruned_or_deleted(bench: Bench) -> None:
    ended = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    for status in (*ended, *ended, Status.PENDING, Status.PROCESSING):
        await bench.in_status(status)
    before = await totals(bench)

    deleted = await bench.in_status(Status.FAILED)
    await bench.jobs.delete(deleted.job_id)
    assert await bench.jobs.prune(Status.COMPLETED, finished_before=NOW + LATER, limit=1) == 1
    assert await bench.jobs.delete_dead_letters(JobFilter(), limit=1) == 1
    assert await bench.jobs.prune_excess(keep=1, limit=10) == 3
    after = await totals(bench)

    assert (before.processed, before.failed, before.cancelled) == (2, 2, 2)
    assert (after.processed, after.failed, after.cancelled) == (2, 3, 2)
    assert accepted(after) == accepted(before) + 1
    assert sum(after.present[status] for status in ended) == 1


async def test_a_job_that_is_deleted_before_it_ended_is_not_counted(bench: Bench) -> None:
    job = await bench.add()

    await bench.jobs.delete(job.id)

    assert accepted(await totals(bench)) == 0


async def test_a_redriven_job_counts_where_it_ends_at_last(bench: Bench) -> None:
    claim = await bench.in_status(Status.FAILED)

    await bench.jobs.redrive(claim.job_id, at=NOW)
    waiting = await totals(bench)
    (again,) = await bench.claim(await bench.jobs.get(claim.job_id))
    await bench.jobs.complete(again, None, at=NOW)
    done = await totals(bench)

    assert (waiting.failed, waiting.present[Status.PENDING]) == (0, 1)
    assert (done.failed, done.processed) == (0, 1)


async def test_attempts_that_are_put_back_count_as_retried_and_given_back_ones_do_not(bench: Bench) -> None:
    failed, lost, snoozed, released = [await bench.running() for _ in range(4)]
    await bench.jobs.retry(failed, BOOM, run_at=NOW, at=NOW)
    await bench.jobs.snooze(snoozed, until=NOW, at=NOW)
    await bench.jobs.release(released, at=NOW)

    await bench.expire(lost)
    await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert (await totals(bench)).retried == 2


async def test_an_outcome_that_is_written_again_counts_once(bench: Bench) -> None:
    claim = await bench.running()
    bench.faults.lose_answer("bulk_write")

    await bench.jobs.retry(claim, BOOM, run_at=NOW, at=NOW)

    assert (await totals(bench)).retried == 1


async def test_idempotency_keys_in_force_are_counted(bench: Bench) -> None:
    await bench.add(idempotency_key="a")
    await bench.add(idempotency_key="b")
    await bench.add()

    assert (await totals(bench)).idempotency_keys == 2


async def test_totals_are_those_of_all_processes(bench: Bench, another: MongoJobRepository) -> None:
    claims = [await bench.running(), await bench.running()]
    await bench.jobs.retry(claims[0], BOOM, run_at=NOW, at=NOW)
    await another.retry(claims[1], BOOM, run_at=NOW, at=NOW)
    await another.delete((await bench.in_status(Status.COMPLETED)).job_id)

    await another.save_counts()

    found = await totals(bench)
    assert (found.retried, found.processed) == (2, 1)
    assert found == await another.totals()


async def test_without_news_nothing_is_written(bench: Bench, counters: Any) -> None:
    claim = await bench.running()
    await bench.jobs.save_counts()
    nothing = await counters.find({}).to_list(None)
    await bench.jobs.retry(claim, BOOM, run_at=NOW, at=NOW)
    await bench.jobs.save_counts()
    before = await counters.find({}).to_list(None)

    bench.clock.move(SECOND)
    await bench.jobs.save_counts()

    assert (nothing, len(before)) == ([], 1)
    assert await counters.find({}).to_list(None) == before


async def test_counters_of_silent_processes_become_one_total(
    bench: Bench, another: MongoJobRepository, counters: Any
) -> None:
    for jobs in (bench.jobs, another):
        await jobs.retry(await bench.running(), BOOM, run_at=NOW, at=NOW)
        await jobs.delete((await bench.in_status(Status.FAILED)).job_id)
        await jobs.save_counts()
    assert await bench.jobs.fold_counts() == 0

    bench.clock.move(FOLD_AFTER + SECOND)
    folded = await bench.jobs.fold_counts()

    assert folded == 2
    assert [one["_id"] for one in await counters.find({}).to_list(None)] == ["total"]
    found = await totals(bench)
    assert (found.retried, found.failed) == (2, 2)


async def test_a_process_that_comes_back_after_it_was_folded_counts_on_and_not_again(
    bench: Bench, another: MongoJobRepository
) -> None:
    for _ in range(3):
        await another.retry(await bench.running(), BOOM, run_at=NOW, at=NOW)
        await another.delete((await bench.in_status(Status.FAILED)).job_id)
    await another.save_counts()
    bench.clock.move(FOLD_AFTER + SECOND)
    await bench.jobs.fold_counts()

    await another.delete((await bench.in_status(Status.FAILED)).job_id)
    await another.retry(await bench.running(), BOOM, run_at=NOW, at=NOW)
    await another.save_counts()

    found = await totals(bench)
    assert (found.retried, found.failed) == (4, 4)


async def test_a_delete_that_fails_is_not_counted(bench: Bench) -> None:
    claim = await bench.in_status(Status.COMPLETED)
    bench.faults.fail("delete_many")

    with pytest.raises(Exception, match="delete"):
        await bench.jobs.prune(Status.COMPLETED, finished_before=NOW + LATER, limit=10)

    assert (await totals(bench)).processed == 1
    assert await bench.status(claim.job_id) is Status.COMPLETED


async def test_a_delete_whose_answer_is_lost_is_undone_or_counted(bench: Bench) -> None:
    await bench.in_status(Status.COMPLETED)
    bench.faults.lose_answer("delete_many")

    with pytest.raises(Exception, match="delete"):
        await bench.jobs.prune(Status.COMPLETED, finished_before=NOW + LATER, limit=10)

    assert (await totals(bench)).processed == 1


async def test_deletes_at_the_same_time_all_happen_and_are_counted(bench: Bench) -> None:
    """(Two transactions that write to the same counter undo each other.)"""
    ended = [await bench.in_status(Status.COMPLETED) for _ in range(20)]

    await asyncio.gather(*(bench.jobs.delete(claim.job_id) for claim in ended))

    assert await bench.raw.count_documents({}) == 0
    assert (await totals(bench)).processed == 20


async def test_a_delete_does_not_wait_for_ever_for_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters_module, "CLIENT_SECONDS", 0.05)
    slow, other = [await bench.in_status(Status.COMPLETED) for _ in range(2)]
    begun, end = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await end.wait()

    bench.faults.meanwhile("delete_one", wait)
    deleting = asyncio.create_task(bench.jobs.delete(slow.job_id))
    await asyncio.wait_for(begun.wait(), 20)

    with pytest.raises(Unavailable, match="too many deletes are under way"):
        await bench.jobs.delete(other.job_id)
    end.set()
    await deleting

    assert (await totals(bench)).processed == 2
    assert await bench.status(other.job_id) is Status.COMPLETED


async def test_more_silent_processes_than_are_folded_at_once_are_folded_in_turns(bench: Bench, counters: Any) -> None:
    await counters.insert_many([{"_id": f"p{n}", "at": NOW, "retried": 1} for n in range(MAX_FOLDED + 5)])
    bench.clock.move(FOLD_AFTER + SECOND)

    await bench.jobs.fold_counts()
    await bench.jobs.fold_counts()
    await bench.jobs.fold_counts()

    assert await counters.count_documents({}) == 1
    assert (await totals(bench)).retried == MAX_FOLDED + 5
