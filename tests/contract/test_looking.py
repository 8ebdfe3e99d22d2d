"""Lists, counts and single looks: newest first, nothing twice, nothing left out, nothing that fails a page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from bench import NOW, SECOND, Bench, ids
from bson import Binary, Decimal128, Int64, ObjectId, Regex
from faults import NO_MAJORITY

from jobqueue.errors import JobNotFound, Unavailable
from jobqueue.job import Job, JobId, Status
from jobqueue.repository import JobFilter, QueueCount

HUGE = 4 << 20
HOUR = timedelta(hours=1)


async def pages(bench: Bench, which: JobFilter, *, limit: int, max_bytes: int = HUGE) -> list[list[JobId]]:
    """The ids of every page, one after the other."""
    found, before = [], None
    while True:
        page = await bench.jobs.list(which, before=before, limit=limit, max_bytes=max_bytes)
        found.append(ids(page.jobs))
        before = page.next_before
        if before is None:
            return found


def newest_first(jobs: Sequence[Job]) -> list[JobId]:
    return ids(sorted(jobs, key=lambda job: -job.seq))


async def test_a_job_that_is_not_there_is_not_found(bench: Bench) -> None:
    with pytest.raises(JobNotFound):
        await bench.jobs.get("nothing")


async def test_looks_at_the_same_moment_each_get_their_own_job(bench: Bench) -> None:
    jobs = await bench.add_many(3)
    wanted = [*ids(jobs), JobId("nothing"), jobs[0].id] * 20

    answers = await asyncio.gather(*(bench.jobs.get(job_id) for job_id in wanted), return_exceptions=True)

    told = [answer.id if isinstance(answer, Job) else type(answer) for answer in answers]
    assert told == [job_id if job_id != "nothing" else JobNotFound for job_id in wanted]


async def test_a_list_shows_the_newest_first_over_all_pages(bench: Bench) -> None:
    jobs = []
    for _ in range(4):
        jobs += await bench.add_many(6)
        bench.clock.move(HOUR)

    found = await pages(bench, JobFilter(), limit=5)

    assert [job_id for page in found for job_id in page] == newest_first(jobs)
    assert [len(page) for page in found] == [5, 5, 5, 5, 4]


async def test_the_last_page_says_that_it_is_the_last(bench: Bench) -> None:
    await bench.add_many(4)

    page = await bench.jobs.list(JobFilter(), before=None, limit=4, max_bytes=HUGE)

    assert len(page.jobs) == 4
    assert page.next_before is None
    assert (await bench.jobs.list(JobFilter(tag="none"), before=None, limit=4, max_bytes=HUGE)).jobs == []


async def test_jobs_of_the_same_sequence_number_are_not_torn_apart(bench: Bench) -> None:
    """Two processes may give the same number to two jobs; a cursor between them would skip one."""
    first = await bench.add(seq=1000)
    twins = [await bench.add(seq=2000), await bench.add(seq=2000)]
    last = await bench.add(seq=3000)

    found = await pages(bench, JobFilter(), limit=2)

    assert found[0] == [last.id]
    assert set(found[1]) == set(ids(twins))
    assert found[2] == [first.id]


async def test_every_filter_shows_what_matches_and_only_that(bench: Bench) -> None:
    old = await bench.add(type="mail", queue="a", tags=["x", "y"])
    bench.clock.move(HOUR)
    new = await bench.add(type="sms", queue="b", tags=["y"], status=Status.SCHEDULED, run_at=NOW + 9 * HOUR)
    filters = {
        JobFilter(status=Status.PENDING): [old],
        JobFilter(status=Status.SCHEDULED): [new],
        JobFilter(type="mail"): [old],
        JobFilter(queue="b"): [new],
        JobFilter(tag="x"): [old],
        JobFilter(tag="y"): [new, old],
        JobFilter(created_after=NOW + SECOND): [new],
        JobFilter(created_after=NOW): [new, old],
        JobFilter(created_before=NOW + HOUR): [old],
        JobFilter(created_before=NOW): [],
        JobFilter(status=Status.PENDING, type="mail", queue="a", tag="y"): [old],
        JobFilter(status=Status.PENDING, type="sms"): [],
    }

    for which, expected in filters.items():
        found = await pages(bench, which, limit=10)
        assert [job_id for page in found for job_id in page] == ids(expected), which


async def test_a_page_ends_early_when_it_is_heavy_and_the_next_goes_on(bench: Bench) -> None:
    jobs = await bench.add_many(6, payload="x" * 1000)

    found = await pages(bench, JobFilter(), limit=10, max_bytes=3000)

    assert [len(page) for page in found] == [2, 2, 2]
    assert [job_id for page in found for job_id in page] == newest_first(jobs)
    assert [len(page) for page in await pages(bench, JobFilter(), limit=10, max_bytes=1)] == [1] * 6


async def test_a_document_that_cannot_be_read_is_shown_and_never_fails_a_page(bench: Bench) -> None:
    good = await bench.add(payload="fine")
    await bench.put(_id="bad", seq=Int64(good.seq + 1), status="somewhere", queue=[1], retryCount="x", type="mail")

    page = await bench.jobs.list(JobFilter(), before=None, limit=10, max_bytes=HUGE)

    bad, shown_good = page.jobs
    assert shown_good == good
    assert (bad.id, bad.type, bad.status) == ("bad", "mail", Status.FAILED)
    assert bad.errors is not None
    assert all(field in bad.errors[0].message for field in ("status", "queue", "retryCount"))
    assert await bench.jobs.get("bad") == bad


async def test_values_that_json_lacks_are_shown_as_text(bench: Bench) -> None:
    payload: dict[str, Any] = {
        "id": ObjectId("0123456789abcdef01234567"),
        "at": NOW,
        "money": Decimal128("1.10"),
        "big": Int64(5),
        "bytes": Binary(b"ab"),
        "uuid": Binary.from_uuid(UUID(int=1)),
        "pattern": Regex("^a", "i"),
        "nan": float("nan"),
        "list": [{"at": NOW}],
    }
    await bench.put(_id="odd", seq=Int64(1), status="pending", runAt=NOW, payload=payload)

    shown = (await bench.jobs.get("odd")).payload

    at = "2026-02-02T05:30:00.000Z"
    assert shown | {"pattern": ""} == {
        "id": "0123456789abcdef01234567",
        "at": at,
        "money": "1.10",
        "big": 5,
        "bytes": "YWI=",
        "uuid": "AAAAAAAAAAAAAAAAAAAAAQ==",
        "pattern": "",
        "nan": "nan",
        "list": [{"at": at}],
    }
    assert isinstance(shown["pattern"], str)


async def test_whoever_asks_in_mongosh_for_a_state_is_shown_all_that_stands_in_it(bench: Bench) -> None:
    """Without a hint, and by the state alone: only the index of all states keeps one server from the claim index, in
    which it would find nothing."""
    placed = {status: (await bench.in_status(status)).job_id for status in Status}

    found = {status: await bench.raw.find({"status": status.value}).to_list(None) for status in Status}

    assert {status: [job["_id"] for job in jobs] for status, jobs in found.items()} == {
        status: [job_id] for status, job_id in placed.items()
    }


async def test_a_count_goes_up_to_its_limit(bench: Bench) -> None:
    await bench.add_many(5)

    assert await bench.jobs.count(Status.PENDING, limit=100) == 5
    assert await bench.jobs.count(Status.PENDING, limit=3) == 3
    assert await bench.jobs.count(Status.FAILED, limit=3) == 0


async def test_queues_show_what_waits_and_what_runs(bench: Bench) -> None:
    await bench.add(queue="mail", run_at=NOW - SECOND)
    await bench.add(queue="mail", priority=9)
    await bench.add(queue="mail", status=Status.SCHEDULED, run_at=NOW + SECOND)
    await bench.running(queue="mail")
    done = await bench.running(queue="idle")
    await bench.jobs.complete(done, None, at=NOW)

    assert list(await bench.jobs.queues()) == [
        QueueCount("idle", pending=0, scheduled=0, processing=0, oldest_pending_at=None),
        QueueCount("mail", pending=2, scheduled=1, processing=1, oldest_pending_at=NOW - SECOND),
    ]


async def test_dead_letters_are_redriven_newest_first_by_filter(bench: Bench) -> None:
    failed = [await bench.in_status(Status.FAILED, type="mail" if number % 2 else "sms") for number in range(6)]
    cancelled = await bench.in_status(Status.CANCELLED)

    redriven = await bench.jobs.redrive_many(JobFilter(type="mail"), at=NOW + SECOND, limit=2)

    assert {candidate.id for candidate in redriven} == {failed[5].job_id, failed[3].job_id}
    assert {candidate.run_at for candidate in redriven} == {NOW + SECOND}
    assert await bench.status(failed[1].job_id) is Status.FAILED
    assert len(await bench.jobs.redrive_many(JobFilter(), at=NOW + SECOND, limit=100)) == 4
    assert await bench.status(cancelled.job_id) is Status.CANCELLED


async def test_what_another_caller_redrives_first_is_left_out(bench: Bench) -> None:
    mine, theirs = await bench.in_status(Status.FAILED), await bench.in_status(Status.FAILED)

    async def redrive() -> None:
        await bench.jobs.redrive(theirs.job_id, at=NOW)

    bench.faults.meanwhile("bulk_write", redrive)
    redriven = await bench.jobs.redrive_many(JobFilter(), at=NOW + SECOND, limit=10)

    assert [candidate.id for candidate in redriven] == [mine.job_id]
    assert (await bench.jobs.get(theirs.job_id)).redrives == 1


async def test_dead_letters_are_not_put_back_when_no_majority_knows_it(bench: Bench) -> None:
    await bench.in_status(Status.FAILED)
    bench.faults.lose_answer("bulk_write", error=NO_MAJORITY)

    with pytest.raises(Unavailable):
        await bench.jobs.redrive_many(JobFilter(), at=NOW, limit=10)


async def test_dead_letters_are_deleted_newest_first_by_filter(bench: Bench) -> None:
    failed = [await bench.in_status(Status.FAILED, type="mail" if number % 2 else "sms") for number in range(6)]
    cancelled = await bench.in_status(Status.CANCELLED)

    assert await bench.jobs.delete_dead_letters(JobFilter(type="mail"), limit=2) == 2

    left = [failed[number].job_id for number in (0, 1, 2, 4)]
    assert (await bench.jobs.get_many([claim.job_id for claim in failed])).keys() == set(left)
    assert await bench.jobs.delete_dead_letters(JobFilter(), limit=100) == 4
    assert await bench.status(cancelled.job_id) is Status.CANCELLED


async def test_a_dead_letter_that_is_redriven_meanwhile_is_not_deleted(bench: Bench) -> None:
    dead, redriven = await bench.in_status(Status.FAILED), await bench.in_status(Status.FAILED)

    async def redrive() -> None:
        await bench.jobs.redrive(redriven.job_id, at=NOW)

    bench.faults.meanwhile("delete_many", redrive)

    assert await bench.jobs.delete_dead_letters(JobFilter(), limit=10) == 1
    assert await bench.status(redriven.job_id) is Status.PENDING
    assert not await bench.jobs.get_many([dead.job_id])


async def test_counts_by_state_name_every_state(bench: Bench) -> None:
    await bench.add_many(2)
    await bench.running()

    counts = await bench.jobs.count_by_status()

    assert counts == dict.fromkeys(Status, 0) | {Status.PENDING: 2, Status.PROCESSING: 1}


async def test_many_jobs_are_read_by_id_and_those_gone_are_left_out(bench: Bench) -> None:
    job = await bench.add()

    assert await bench.jobs.get_many([job.id, "gone"]) == {job.id: job}
    assert await bench.jobs.revisions([job.id, "gone"]) == {job.id: (Status.PENDING, NOW)}


@pytest.mark.parametrize("queue", [["a", "b"], {"a": 1}, 7, None])
async def test_a_queue_that_is_no_text_does_not_keep_the_others_from_being_counted(bench: Bench, queue: object) -> None:
    await bench.add(queue="a")
    await bench.put(_id="listed", queue="a", status=["pending"], runAt=NOW, seq=1)
    for status in ("pending", "scheduled", "processing"):
        await bench.put(_id=status, queue=queue, status=status, runAt=NOW, seq=1)

    assert [(count.name, count.pending) for count in await bench.jobs.queues()] == [("a", 1)]
