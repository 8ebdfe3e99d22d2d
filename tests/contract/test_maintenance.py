"""Sweeps: each job by its guard, none stolen, none forgotten, nothing unbounded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bench import LEASE, NOW, SECOND, WORKER, Bench
from bson import Decimal128, ObjectId
from pymongo.errors import BulkWriteError, OperationFailure

from jobqueue.errors import SchemaConflict, Unavailable
from jobqueue.job import LAST_INSTANT, Candidate, LeaseId, Status, WorkerId, to_milliseconds
from jobqueue.repository import WorkerRecord

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def test_a_scheduled_job_becomes_pending_when_it_is_due_and_not_before(bench: Bench) -> None:
    due = await bench.add(status=Status.SCHEDULED, run_at=NOW)
    later = await bench.add(status=Status.SCHEDULED, run_at=NOW + SECOND / 1000)

    promoted = await bench.jobs.promote(now=NOW, limit=10)

    assert promoted.candidates == [Candidate.of(due)]
    assert (await bench.jobs.promote(now=NOW, limit=10)).next_due == later.run_at
    assert [await bench.status(job.id) for job in (due, later)] == [Status.PENDING, Status.SCHEDULED]


async def test_a_job_that_is_cancelled_while_the_stager_looks_stays_cancelled(bench: Bench) -> None:
    job = await bench.add(status=Status.SCHEDULED, run_at=NOW)

    async def cancel() -> None:
        await bench.jobs.cancel(job.id, at=NOW)

    bench.faults.meanwhile("update_many", cancel)
    await bench.jobs.promote(now=NOW, limit=10)

    assert await bench.status(job.id) is Status.CANCELLED


async def test_a_job_that_was_run_and_put_off_while_the_stager_looks_is_not_promoted(bench: Bench) -> None:
    job = await bench.add(status=Status.SCHEDULED, run_at=NOW)

    async def put_off() -> None:
        await bench.raw.update_one({"_id": job.id}, {"$set": {"runAt": NOW + SECOND}})

    bench.faults.meanwhile("update_many", put_off)
    await bench.jobs.promote(now=NOW, limit=10)

    assert await bench.status(job.id) is Status.SCHEDULED


async def test_promotion_takes_the_longest_due_first_and_says_that_more_is_due(bench: Bench) -> None:
    jobs = [await bench.add(status=Status.SCHEDULED, run_at=NOW - SECOND * late) for late in range(5)]

    promoted = await bench.jobs.promote(now=NOW, limit=2)

    assert [candidate.id for candidate in promoted.candidates] == [jobs[4].id, jobs[3].id]
    assert promoted.next_due == NOW
    await bench.jobs.promote(now=NOW, limit=10)
    assert (await bench.jobs.promote(now=NOW, limit=10)).next_due is None


async def test_only_expired_leases_are_rescued(bench: Bench) -> None:
    expired, healthy = await bench.claim(*await bench.add_many(2))
    await bench.expire(expired)

    rescued = await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert [candidate.id for candidate in rescued.requeued] == [expired.job_id]
    job = await bench.jobs.get(expired.job_id)
    assert (job.status, job.retry_count, job.lease) == (Status.PENDING, 1, None)
    assert job.errors is not None
    assert (job.errors[0].message, job.errors[0].worker_id, job.errors[0].attempt) == ("lease expired", WORKER, 1)
    assert await bench.status(healthy.job_id) is Status.PROCESSING


async def test_a_lease_that_is_renewed_while_the_reaper_looks_is_left_alone(bench: Bench) -> None:
    """A renewal keeps the lease id: the expiry must be in the write itself."""
    claim = await bench.running()
    await bench.expire(claim)

    async def renew() -> None:
        await bench.change_lease(claim, expiresAt=NOW + LEASE)

    bench.faults.meanwhile("bulk_write", renew)
    rescued = await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert (list(rescued.requeued), rescued.failed, rescued.cancelled) == ([], 0, 0)
    await bench.jobs.complete(claim, None, at=NOW)


async def test_nothing_is_rescued_when_contact_was_lost_while_the_reaper_looked(bench: Bench) -> None:
    claim = await bench.running()
    await bench.expire(claim)

    rescued = await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10, still=lambda: False)

    assert (list(rescued.requeued), rescued.failed, rescued.cancelled) == ([], 0, 0)
    assert await bench.status(claim.job_id) is Status.PROCESSING


async def test_nothing_is_rescued_that_is_not_over_by_the_clock_of_the_present_primary(bench: Bench) -> None:
    """Another one may have taken over, with a clock behind that by which `cutoff` was told."""
    claim = await bench.running()
    await bench.change_lease(claim, expiresAt=LAST_INSTANT - LEASE)

    rescued = await bench.jobs.rescue(cutoff=LAST_INSTANT, at=NOW, limit=10)

    assert (list(rescued.requeued), rescued.failed, rescued.cancelled) == ([], 0, 0)
    assert await bench.status(claim.job_id) is Status.PROCESSING


async def test_a_job_that_was_taken_over_while_the_reaper_looks_is_left_alone(bench: Bench) -> None:
    claim = await bench.running()
    await bench.expire(claim)

    async def take_over() -> None:
        await bench.change_lease(claim, id="another")

    bench.faults.meanwhile("bulk_write", take_over)
    await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert await bench.status(claim.job_id) is Status.PROCESSING


async def test_a_cancel_that_comes_while_the_reaper_looks_is_not_lost(bench: Bench) -> None:
    claim = await bench.running()
    await bench.expire(claim)

    async def cancel() -> None:
        await bench.jobs.cancel(claim.job_id, at=NOW)

    bench.faults.meanwhile("bulk_write", cancel)
    for _ in range(2):
        await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert await bench.status(claim.job_id) is Status.CANCELLED


async def test_a_rescued_job_without_attempts_left_has_failed(bench: Bench) -> None:
    claim = await bench.running(max_retries=1)
    await bench.expire(claim)

    rescued = await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert (rescued.failed, list(rescued.requeued)) == (1, [])
    assert (await bench.jobs.get(claim.job_id)).finished_at == NOW


async def test_of_several_reapers_each_job_is_rescued_once(bench: Bench) -> None:
    claims = await bench.claim(*await bench.add_many(20))
    for claim in claims:
        await bench.expire(claim)

    await asyncio.gather(*(bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10) for _ in range(4)))
    await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    jobs = [await bench.jobs.get(claim.job_id) for claim in claims]
    assert {(job.status, job.retry_count, len(job.errors or ())) for job in jobs} == {(Status.PENDING, 1, 1)}


async def test_a_rescue_that_no_majority_has_is_not_believed_although_one_document_refused_it(bench: Bench) -> None:
    claim = await bench.running()
    await bench.expire(claim)
    details = {"writeErrors": [{"index": 0, "code": 2}], "writeConcernErrors": [{"code": 64, "errmsg": "timed out"}]}
    bench.faults.lose_answer("bulk_write", error=BulkWriteError(details))

    with pytest.raises(Unavailable):
        await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)


async def test_an_expired_job_whose_errors_are_no_list_is_rescued_too(bench: Bench) -> None:
    claim, neighbour = await bench.claim(*await bench.add_many(2))
    await bench.raw.update_one({"_id": claim.job_id}, {"$set": {"errors": None}})
    await bench.expire(claim)
    await bench.expire(neighbour)

    await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert [await bench.status(each.job_id) for each in (claim, neighbour)] == [Status.PENDING] * 2


async def test_orphans_are_given_back_and_what_is_known_is_left_alone(bench: Bench) -> None:
    known, orphan, stopped, other = [await bench.running() for _ in range(4)]
    await bench.jobs.cancel(stopped.job_id, at=NOW)

    released = await bench.jobs.release_orphans(
        [known.lease_id, orphan.lease_id, stopped.lease_id, LeaseId("never used")], {known}, at=NOW
    )

    assert [candidate.id for candidate in released] == [orphan.job_id]
    job = await bench.jobs.get(orphan.job_id)
    assert (job.status, job.retry_count, job.last_outcome) == (Status.PENDING, 0, None)
    job = await bench.jobs.get(stopped.job_id)
    assert (job.status, job.retry_count, job.finished_at) == (Status.CANCELLED, 0, NOW)
    assert [await bench.status(each.job_id) for each in (known, other)] == [Status.PROCESSING] * 2


async def test_pruning_deletes_the_longest_finished_of_one_state(bench: Bench) -> None:
    finished = [await bench.in_status(Status.COMPLETED, finishedAt=NOW - DAY * age) for age in range(4)]
    failed = await bench.in_status(Status.FAILED, finishedAt=NOW - 9 * DAY)

    assert await bench.jobs.prune(Status.COMPLETED, finished_before=NOW - DAY, limit=1) == 1
    assert await bench.raw.find_one({"_id": finished[3].job_id}) is None
    assert await bench.jobs.prune(Status.COMPLETED, finished_before=NOW - DAY, limit=10) == 1

    left = {document["_id"] for document in await bench.raw.find({}).to_list(None)}
    assert left == {finished[0].job_id, finished[1].job_id, failed.job_id}


async def test_pruning_what_is_too_much_keeps_the_newest_and_dead_letters_longest(bench: Bench) -> None:
    states = [Status.COMPLETED, Status.FAILED, Status.CANCELLED]
    finished = [await bench.in_status(states[age % 3], finishedAt=NOW - DAY * age) for age in range(6)]
    waiting = await bench.add()

    async def left() -> list[int]:
        ids = {document["_id"] for document in await bench.raw.find({}).to_list(None)}
        assert waiting.id in ids
        return [age for age, claim in enumerate(finished) if claim.job_id in ids]

    assert await bench.jobs.prune_excess(keep=4, limit=1) == 1
    assert await bench.jobs.prune_excess(keep=4, limit=100) == 1
    assert await bench.jobs.prune_excess(keep=4, limit=100) == 0
    assert await left() == [0, 1, 2, 4]
    assert await bench.jobs.prune_excess(keep=1, limit=100) == 3
    assert await left() == [1]


async def test_what_is_finished_anew_while_the_pruner_looks_is_none_of_the_oldest(bench: Bench) -> None:
    old, new = [await bench.in_status(Status.COMPLETED, finishedAt=NOW - DAY * age) for age in (2, 1)]

    async def finish_anew() -> None:
        await bench.raw.update_one({"_id": old.job_id}, {"$set": {"finishedAt": NOW}})

    bench.faults.meanwhile("delete_many", finish_anew)

    assert await bench.jobs.prune_excess(keep=1, limit=10) == 0
    assert (await bench.jobs.get_many([old.job_id, new.job_id])).keys() == {old.job_id, new.job_id}


async def test_a_queue_is_forgotten_when_it_is_unused_and_holds_nothing_unfinished(bench: Bench) -> None:
    for status in (Status.PENDING, Status.SCHEDULED, Status.PROCESSING, Status.COMPLETED):
        await bench.add(queue=status.value)
        await bench.raw.update_one({"queue": status.value}, {"$set": {"status": status.value}})

    assert await bench.jobs.prune_signals(unused_since=NOW) == 0
    assert await bench.jobs.prune_signals(unused_since=NOW + SECOND) == 1

    assert list(await bench.jobs.known_queues()) == ["pending", "processing", "scheduled"]


async def test_a_queue_that_gets_a_job_while_the_pruner_looks_is_not_forgotten(bench: Bench) -> None:
    """Whoever brings a job touches the queue first, and the delete repeats that it is unused."""
    job = await bench.add(queue="mail")
    await bench.jobs.delete(job.id)
    bench.clock.move(DAY)

    async def add() -> None:
        await bench.add(queue="mail")

    bench.faults.meanwhile("signals.delete_one", add)
    assert await bench.jobs.prune_signals(unused_since=NOW + HOUR) == 0

    assert list(await bench.jobs.known_queues()) == ["mail"]


async def test_a_forgotten_queue_is_known_again_with_its_next_job(bench: Bench) -> None:
    job = await bench.add(queue="mail")
    await bench.jobs.delete(job.id)
    await bench.jobs.prune_signals(unused_since=NOW + SECOND)

    await bench.add(queue="mail")

    assert list(await bench.jobs.known_queues()) == ["mail"]


async def test_a_document_made_by_hand_becomes_a_job(bench: Bench) -> None:
    await bench.put(_id="mine", type="email.send", payload={"to": "a"}, status=None, errors=None)
    later = await bench.put(_id="later", runAt=NOW + DAY, priority=2)
    done = await bench.put(_id="done", status="completed")
    unowned = await bench.put(_id="unowned", status="processing")

    adopted = await bench.jobs.adopt(at=NOW, limit=10)

    assert {candidate.id for candidate in adopted} == {"mine", unowned}
    job = await bench.jobs.get("mine")
    assert (job.type, job.payload, job.status, job.queue) == ("email.send", {"to": "a"}, Status.PENDING, "default")
    assert (job.max_retries, job.run_at, job.created_at) == (3, NOW, NOW)
    assert "errors" not in await bench.stored("mine")
    assert await bench.status(later) is Status.SCHEDULED
    assert (await bench.jobs.get(done)).finished_at == NOW
    assert await bench.jobs.adopt(at=NOW, limit=10) == []
    assert list(await bench.jobs.known_queues()) == ["default"]
    await bench.claim(job)


async def test_a_document_beyond_repair_fails_with_the_reason_and_harms_no_other(bench: Bench) -> None:
    await bench.put(_id="bad", queue=5)
    await bench.put(_id="good")

    adopted = await bench.jobs.adopt(at=NOW, limit=10)

    assert [candidate.id for candidate in adopted] == ["good"]
    bad = await bench.jobs.get("bad")
    assert bad.status is Status.FAILED
    assert bad.errors is not None
    assert "queue" in bad.errors[0].message


@pytest.mark.parametrize("field", [{"status": ["pending"]}, {"priority": "9" * 20}, {"status": {"a": 1}}])
async def test_whatever_was_typed_the_others_are_adopted(bench: Bench, field: dict[str, Any]) -> None:
    await bench.put(_id="bad", **field)
    await bench.put(_id="good")

    adopted = await bench.jobs.adopt(at=NOW, limit=10)

    assert [candidate.id for candidate in adopted] == ["good"]
    bad = await bench.jobs.get("bad")
    assert bad.status is Status.FAILED
    assert bad.errors
    assert await bench.jobs.adopt(at=NOW, limit=10) == []


async def test_a_waiting_document_with_an_id_of_several_fields_holds_up_nothing(bench: Bench) -> None:
    await bench.put(_id={"order": 5}, status="pending", queue="default", priority=0, runAt=NOW, seq=1)
    good = await bench.add()

    window = await bench.jobs.candidates(["default"], after=None, limit=10)
    adopted = await bench.jobs.adopt(at=NOW, limit=10)

    assert window.candidates == [Candidate.of(good)]
    assert len(adopted) == 1
    assert {type(document["_id"]) for document in await bench.raw.find({}).to_list(None)} == {str}


async def test_a_running_document_with_an_id_of_several_fields_does_not_keep_others_from_being_rescued(
    bench: Bench,
) -> None:
    claim = await bench.running()
    await bench.expire(claim)
    over = (await bench.stored(claim.job_id))["lease"]
    await bench.put(_id={"order": 5}, status="processing", lease=over, queue="default", priority=0, runAt=NOW, seq=1)

    rescued = await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert [candidate.id for candidate in rescued.requeued] == [claim.job_id]


async def test_finished_documents_without_a_time_do_not_keep_others_from_being_pruned(bench: Bench) -> None:
    for name in ("typed", "typed too"):
        await bench.put(_id=name, status="completed", finishedAt="2026-01-01T00:00:00Z", seq=1)
    odd = await bench.put(_id={"order": 5}, status="completed", finishedAt=NOW - DAY, seq=2)
    await bench.in_status(Status.COMPLETED, finishedAt=NOW)

    assert await bench.jobs.prune_excess(keep=3, limit=10) == 1

    assert await bench.raw.find_one({"_id": odd}) is None
    assert await bench.raw.count_documents({}) == 3


async def test_processes_that_cannot_be_understood_are_left_out(bench: Bench) -> None:
    now = to_milliseconds(datetime.now(UTC))
    await bench.raw.database["workers"].insert_one({"_id": "other", "host": "h", "heartbeatAt": now + HOUR})

    assert list(await bench.jobs.workers(since=now)) == []


IDS: list[tuple[Any, str]] = [
    (ObjectId("0123456789abcdef01234567"), "0123456789abcdef01234567"),
    (101, "101"),
    (102.0, "102"),
]


async def test_ids_that_are_no_strings_become_strings(bench: Bench) -> None:
    for original, _ in IDS:
        await bench.put(_id=original, idempotencyKey=f"key of {original}")
    odd = {"a": 1}
    await bench.put(_id=odd)
    await bench.put(_id=Decimal128("1.5"))

    adopted = {candidate.id for candidate in await bench.jobs.adopt(at=NOW, limit=10)}

    assert {text for _, text in IDS} < adopted
    assert len(adopted) == 5
    assert await bench.raw.count_documents({}) == 5
    assert (await bench.jobs.get("101")).idempotency_key == "key of 101"
    assert await bench.raw.find_one({"_id": 101}) is None


async def test_adopting_again_after_a_crash_in_between_makes_no_second_copy(bench: Bench) -> None:
    await bench.put(_id=101, payload="mine")
    bench.faults.fail("delete_one")
    with pytest.raises(Unavailable):
        await bench.jobs.adopt(at=NOW, limit=10)
    assert await bench.raw.count_documents({}) == 2

    await bench.jobs.adopt(at=NOW, limit=10)

    assert [document["_id"] for document in await bench.raw.find({}).to_list(None)] == ["101"]


async def test_an_adopted_id_that_another_job_has_gets_a_mark(bench: Bench) -> None:
    other = await bench.add(id="101", payload="other")
    await bench.put(_id=101, payload="mine")

    (adopted,) = await bench.jobs.adopt(at=NOW, limit=10)

    assert adopted.id.startswith("101-")
    assert (await bench.jobs.get(adopted.id)).payload == "mine"
    assert await bench.jobs.get("101") == other


async def test_a_process_shows_itself_until_it_says_goodbye(bench: Bench) -> None:
    now = to_milliseconds(datetime.now(UTC))  # (not the bench's time: the server forgets old records by its own)
    record = WorkerRecord(
        id=WorkerId("host:1"),
        host="host",
        pid=1,
        version="0",
        queues=["*"],
        slots=10,
        running=["a"],
        started_at=now,
        heartbeat_at=now,
    )
    await bench.jobs.beat(record.model_copy(update={"slots": 1}))
    await bench.jobs.beat(record)

    assert list(await bench.jobs.workers(since=now)) == [record]
    assert list(await bench.jobs.workers(since=now + SECOND)) == []
    await bench.jobs.farewell(record.id)
    assert list(await bench.jobs.workers(since=now)) == []


async def test_preparing_twice_changes_nothing(bench: Bench) -> None:
    before = await bench.raw.index_information()

    await bench.jobs.prepare()
    await bench.jobs.check()

    assert await bench.raw.index_information() == before


async def test_an_index_of_our_name_with_another_definition_is_a_conflict(bench: Bench) -> None:
    await bench.raw.drop_index("due_v1")
    await bench.raw.create_index([("runAt", -1)], name="due_v1")

    with pytest.raises(SchemaConflict, match="doctor --fix"):
        await bench.jobs.prepare()


async def test_missing_indexes_are_noticed(bench: Bench) -> None:
    await bench.raw.drop_index("claim_v1")

    with pytest.raises(Unavailable, match="claim_v1"):
        await bench.jobs.check()


async def test_work_is_found_when_the_index_that_is_named_is_missing(bench: Bench) -> None:
    job = await bench.add()
    await bench.raw.drop_index("claim_v1")

    assert await bench.candidate_ids() == [job.id]


NO_RIGHT = OperationFailure("not authorized to execute command { createIndexes: ... }", 13)


async def test_indexes_that_are_there_need_no_right_to_make_them(bench: Bench) -> None:
    for method in ("create_indexes", "workers.create_indexes", "job_logs.create_indexes"):
        bench.faults.fail(method, error=NO_RIGHT)

    await bench.jobs.prepare()


async def test_a_missing_index_that_may_not_be_made_is_named(bench: Bench) -> None:
    await bench.raw.drop_index("due_v1")
    bench.faults.fail("create_indexes", error=NO_RIGHT)

    with pytest.raises(Unavailable, match="no right to create the missing indexes due_v1"):
        await bench.jobs.prepare()


async def test_a_queue_that_is_used_again_after_long_is_touched_again(bench: Bench) -> None:
    await bench.add(queue="mail", run_at=datetime(2026, 1, 1, tzinfo=UTC))
    await bench.raw.delete_many({})
    bench.clock.move(2 * DAY)

    await bench.add(queue="mail")

    assert await bench.jobs.prune_signals(unused_since=NOW + DAY) == 0
