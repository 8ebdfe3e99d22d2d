"""Logs of jobs: kept with the job, bounded, gone with it."""

from __future__ import annotations

from typing import Any

import pytest
from bench import BOOM, LOGS_KEPT, NOW, SECOND, Bench

from jobqueue.job import MAX_LOG_BYTES, MAX_LOG_LINES, LogLine, Status
from jobqueue.log_lines import line_bytes
from jobqueue.repository import JobFilter


def line(message: str, *, attempt: int = 1, **fields: Any) -> LogLine:
    return LogLine(at=NOW, attempt=attempt, level="info", message=message, fields=fields)


@pytest.fixture
def raw_logs(bench: Bench) -> Any:
    return bench.raw.database["job_logs"]


async def test_a_job_that_logged_nothing_has_no_lines(bench: Bench) -> None:
    assert await bench.jobs.logs((await bench.add()).id) == []


async def test_lines_come_back_as_they_went_in_the_oldest_first(bench: Bench) -> None:
    job = await bench.add()
    lines = [line("first", n=1), line("second", nested={"$set": {"a.b": [1.5, None, True]}}), line("third")]

    await bench.jobs.append_logs(job.id, lines[:2])
    await bench.jobs.append_logs(job.id, lines[2:])

    assert await bench.jobs.logs(job.id) == lines


async def test_the_newest_lines_are_kept(bench: Bench) -> None:
    job = await bench.add()
    for start in range(0, MAX_LOG_LINES + 50, 50):
        await bench.jobs.append_logs(job.id, [line(str(n)) for n in range(start, start + 50)])

    kept = await bench.jobs.logs(job.id)

    assert [one.message for one in kept] == [str(n) for n in range(50, MAX_LOG_LINES + 50)]


async def test_a_log_is_bounded_in_bytes_too(bench: Bench) -> None:
    job = await bench.add()
    for n in range(100):
        await bench.jobs.append_logs(job.id, [line(f"{n} " + "x" * 2_000)])

    kept = await bench.jobs.logs(job.id)

    assert MAX_LOG_BYTES - 4_096 < sum(line_bytes(one) for one in kept) <= MAX_LOG_BYTES
    assert kept[-1].message.startswith("99 ")


async def test_logs_outlast_retries_and_redrives(bench: Bench) -> None:
    claim = await bench.running(max_retries=2)
    await bench.jobs.append_logs(claim.job_id, [line("one")])
    await bench.jobs.retry(claim, BOOM, run_at=NOW, at=NOW)
    await bench.jobs.promote(now=NOW, limit=1)
    (again,) = await bench.claim(await bench.jobs.get(claim.job_id))
    await bench.jobs.append_logs(claim.job_id, [line("two", attempt=2)])
    await bench.jobs.fail(again, BOOM, at=NOW)
    await bench.jobs.redrive(claim.job_id, at=NOW)

    assert [(one.attempt, one.message) for one in await bench.jobs.logs(claim.job_id)] == [(1, "one"), (2, "two")]


async def test_logs_go_when_their_job_is_deleted_or_pruned(bench: Bench, raw_logs: Any) -> None:
    claims = [await bench.in_status(Status.COMPLETED) for _ in range(3)]
    claims.append(await bench.in_status(Status.FAILED))
    for claim in claims:
        await bench.jobs.append_logs(claim.job_id, [line("x")])

    await bench.jobs.delete(claims[0].job_id)
    await bench.jobs.delete_dead_letters(JobFilter(), limit=10)
    await bench.jobs.prune(Status.COMPLETED, finished_before=NOW + SECOND, limit=1)
    left = await raw_logs.count_documents({})
    await bench.jobs.prune_excess(keep=0, limit=10)

    assert left == 1
    assert await raw_logs.count_documents({}) == 0


async def test_a_job_that_is_redriven_while_the_pruner_looks_keeps_its_log(bench: Bench) -> None:
    claims = [await bench.in_status(Status.FAILED) for _ in range(2)]
    for claim in claims:
        await bench.jobs.append_logs(claim.job_id, [line("x")])

    async def redrive() -> None:
        await bench.jobs.redrive(claims[0].job_id, at=NOW)

    bench.faults.meanwhile("delete_many", redrive)
    await bench.jobs.prune(Status.FAILED, finished_before=NOW + SECOND, limit=10)

    assert [len(await bench.jobs.logs(claim.job_id)) for claim in claims] == [1, 0]


async def test_a_log_that_nobody_deletes_expires_after_every_job_of_its_time(bench: Bench, raw_logs: Any) -> None:
    await bench.jobs.append_logs((await bench.add()).id, [line("x")])

    document = await raw_logs.find_one({})

    assert document["expiresAt"] == NOW + LOGS_KEPT
    indexes = await raw_logs.index_information()
    assert [one["expireAfterSeconds"] for one in indexes.values() if "expireAfterSeconds" in one] == [0]


async def test_lines_that_people_mistyped_are_left_out(bench: Bench, raw_logs: Any) -> None:
    job = await bench.add()
    await bench.jobs.append_logs(job.id, [line("good")])
    await raw_logs.update_one({"_id": job.id}, {"$push": {"lines": {"$each": [5, {"at": "x"}], "$slice": -200}}})

    assert [one.message for one in await bench.jobs.logs(job.id)] == ["good"]
