"""Storing jobs: each caller gets its own answer, whatever the others sent and whatever the network does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from bench import NOW, SECOND, Bench, ids, insert_one
from faults import GIVES_UP_SOON, NO_MAJORITY
from pymongo.errors import BulkWriteError, OperationFailure, ServerSelectionTimeoutError

from jobqueue.errors import DuplicateJob, InvalidJob, OutcomeUnknown, ShuttingDown, Unavailable
from jobqueue.job import Backoff, Job, Status
from jobqueue.mongo import wakeups
from jobqueue.mongo.calls import Calls

DEEP: Any = "bottom"
for _ in range(63):
    DEEP = {"d": DEEP}

PAYLOADS: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63 - 1,
    -(2**63),
    1.5,
    -0.0,
    1e308,
    "",
    "null\x00byte",
    "\U0001f600 \u00e9 \u4e16\u754c \u202e",
    [],
    {},
    [None, [[]], {"": None}],
    {"$set": {"a.b": 1}, "$where": "x", ".": {"..": 0}, "": {"": ""}},
    {"_id": 1, "__proto__": 2, "status": "completed"},
    {"$date": "2026-01-01T00:00:00Z", "$oid": "x", "$numberLong": "1"},
    DEEP,
    {"long": "x" * 100_000},
]
REFERENCES: list[Any] = [
    {"$ref": "users", "$id": 1},
    {"$ref": "users", "$id": {"$ref": "groups", "$id": "g"}, "$db": "d", "note": [1]},
    [{"$ref": "users", "$id": None}],
    {"$ref": 5, "$id": 1},
    {"$ref": "alone"},
]


async def test_a_stored_job_reads_back_as_it_was_made(bench: Bench) -> None:
    job = bench.new(
        type="email.send",
        queue="mail",
        payload={"to": "a@example.org"},
        priority=-7,
        max_retries=9,
        timeout_seconds=1.5,
        tags=["a", "b"],
        traceparent="00-1-2-01",
        idempotency_key="key",
        fingerprint="f",
        backoff=Backoff(base_seconds=2.5),
        fault={"failures": 2},
    )

    assert await insert_one(bench.jobs, job) == job
    assert await bench.jobs.get(job.id) == job


async def test_what_is_not_set_is_absent_never_null(bench: Bench) -> None:
    job = await bench.add()

    document = await bench.stored(job.id)

    assert [name for name, value in document.items() if value is None] == ["payload"]
    assert set(document) == {
        *("_id", "type", "queue", "payload", "priority", "status", "retryCount", "maxRetries", "runAt"),
        *("createdAt", "updatedAt", "seq", "insertId"),
    }


async def test_jobs_without_keys_do_not_collide_in_the_unique_indexes(bench: Bench) -> None:
    answers = await bench.jobs.insert_many([bench.new() for _ in range(3)])

    assert all(isinstance(answer, Job) for answer in answers)


async def test_payloads_come_back_exactly_as_they_went_in(bench: Bench) -> None:
    jobs = [bench.new(payload=payload) for payload in PAYLOADS]

    await bench.jobs.insert_many(jobs)

    for job, payload in zip(jobs, PAYLOADS, strict=True):
        assert (await bench.jobs.get(job.id)).payload == payload


async def test_what_looks_like_a_database_reference_comes_back_as_it_went_in(bench: Bench) -> None:
    jobs = [bench.new(payload=payload) for payload in REFERENCES]
    await bench.jobs.insert_many(jobs)

    (claim,) = await bench.claim(jobs[0])
    await bench.jobs.complete(claim, REFERENCES[1], at=NOW)

    assert [(await bench.jobs.get(job.id)).payload for job in jobs] == REFERENCES
    assert (await bench.jobs.get(claim.job_id)).result == REFERENCES[1]


@pytest.mark.parametrize(
    "payload",
    [2**63, {"a\x00b": 1}, "\ud800", {1: 2}, object()],
    ids=["too large an integer", "NUL in a key", "half a surrogate pair", "a key that is no text", "no JSON"],
)
async def test_what_cannot_be_stored_is_its_own_callers_error(bench: Bench, payload: object) -> None:
    good, bad, good_too = bench.new(), bench.new(payload=payload), bench.new()

    answers = await bench.jobs.insert_many([good, bad, good_too])

    assert (answers[0], answers[2]) == (good, good_too)
    assert isinstance(answers[1], InvalidJob)


async def test_a_duplicate_in_a_batch_harms_only_its_own_caller(bench: Bench) -> None:
    first = await bench.add(id="101", payload="first")

    before, answer, after = await bench.jobs.insert_many([bench.new(), bench.new(id="101"), bench.new()])

    assert isinstance(before, Job)
    assert isinstance(after, Job)
    assert isinstance(answer, DuplicateJob)
    assert (answer.field, answer.value, answer.existing) == ("id", "101", first)


@pytest.mark.parametrize("field", ["idempotency_key", "unique_key"])
async def test_a_key_belongs_to_one_job(bench: Bench, field: str) -> None:
    first = await bench.add(**{field: "k { dup key: { _id"})

    with pytest.raises(DuplicateJob) as refusal:
        await bench.add(**{field: "k { dup key: { _id"})

    assert refusal.value.field == {"idempotency_key": "idempotencyKey", "unique_key": "uniqueKey"}[field]
    assert refusal.value.existing == first


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read, in the words of whoever would be told that it cannot be."""
    run, names = Calls.run, list[str]()

    async def noting(self: Calls, what: str, call: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        names.append(what)
        return await run(self, what, call, **options)

    monkeypatch.setattr(Calls, "run", noting)
    return names


@pytest.mark.parametrize("field", ["id", "idempotency_key"])
async def test_many_that_are_there_already_are_looked_up_together(bench: Bench, reads: list[str], field: str) -> None:
    """They are in one batch with jobs of others, who wait for their answers."""
    names = [f"order-{number}" for number in range(250)]
    first = await bench.jobs.insert_many([bench.new(**{field: name}) for name in names])
    reads.clear()

    answers = await bench.jobs.insert_many([*(bench.new(**{field: name}) for name in names), bench.new()])

    assert [answer.existing for answer in answers if isinstance(answer, DuplicateJob)] == first
    assert isinstance(answers[-1], Job)
    assert reads == ["read the jobs that are there already"] * 3


async def test_a_lost_answer_to_many_inserts_makes_no_duplicates(bench: Bench) -> None:
    bench.faults.lose_answer("insert_many")
    jobs = [bench.new() for _ in range(250)]

    assert await bench.jobs.insert_many(jobs) == jobs
    assert await bench.raw.count_documents({}) == 250


async def test_of_many_with_the_same_id_at_once_one_is_stored(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.add(id="same") for _ in range(20)), return_exceptions=True)

    assert sum(isinstance(answer, Job) for answer in answers) == 1
    assert sum(isinstance(answer, DuplicateJob) for answer in answers) == 19


async def test_a_lost_answer_to_an_insert_is_no_duplicate(bench: Bench) -> None:
    """The batch is written again, and the documents are recognised by their `insertId`."""
    bench.faults.lose_answer("insert_many", times=2)

    job = await bench.add(id="101", idempotency_key="key")

    assert await bench.jobs.get("101") == job
    assert await bench.raw.count_documents({}) == 1


async def test_a_repeated_insert_of_the_same_job_finds_it_stored(bench: Bench) -> None:
    job = await bench.add(idempotency_key="key")

    assert await insert_one(bench.jobs, job) == job
    assert await bench.raw.count_documents({}) == 1


async def test_an_insert_that_was_never_sent_is_sent_again(bench: Bench) -> None:
    bench.faults.fail("insert_many", times=2)

    job = await bench.add()

    assert await bench.jobs.get(job.id) == job


@GIVES_UP_SOON
async def test_without_a_majority_nobody_in_the_batch_is_told_stored(bench: Bench) -> None:
    bench.faults.lose_answer("insert_many", times=100, error=NO_MAJORITY)

    answers = await bench.jobs.insert_many([bench.new(), bench.new()])

    assert [type(answer) for answer in answers] == [OutcomeUnknown, OutcomeUnknown]


async def test_a_majority_that_comes_late_is_waited_for(bench: Bench) -> None:
    bench.faults.lose_answer("insert_many", error=NO_MAJORITY)

    assert isinstance(await bench.add(), Job)


@GIVES_UP_SOON
async def test_a_server_that_cannot_be_reached_leaves_nothing_in_doubt(bench: Bench) -> None:
    bench.faults.fail("insert_many", times=100, error=ServerSelectionTimeoutError("no primary (injected)"))

    with pytest.raises(Unavailable) as refusal:
        await bench.add()

    assert not isinstance(refusal.value, OutcomeUnknown)
    assert str(refusal.value) == "cannot store the job: no MongoDB server could be reached"


@GIVES_UP_SOON
async def test_what_may_have_been_written_stays_in_doubt_when_the_server_goes_away(bench: Bench) -> None:
    bench.faults.lose_answer("insert_many")
    bench.faults.fail("insert_many", times=100, error=ServerSelectionTimeoutError("no primary (injected)"))

    with pytest.raises(OutcomeUnknown):
        await bench.add()


@GIVES_UP_SOON
async def test_a_server_that_lets_nobody_write_refuses_no_job_for_good(bench: Bench) -> None:
    bench.faults.fail("insert_many", times=100, error=OperationFailure("not authorized (injected)", 13))

    answers = await bench.jobs.insert_many([bench.new(), bench.new()])

    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]


@pytest.mark.parametrize(("code", "answered"), [(121, InvalidJob), (13, Unavailable)])
async def test_one_of_a_batch_that_the_server_did_not_take_is_told_whose_fault_that_is(
    bench: Bench, code: int, answered: type[Exception]
) -> None:
    refused = BulkWriteError({"writeErrors": [{"index": 1, "code": code, "errmsg": "(injected)"}]})
    bench.faults.lose_answer("insert_many", error=refused)

    answers = await bench.jobs.insert_many([bench.new() for _ in range(3)])

    assert [type(answer) for answer in answers] == [Job, answered, Job]


async def test_a_duplicate_that_cannot_be_looked_at_may_be_the_job_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.add(id="101")

    async def unanswered(self: Calls, what: str, *args: object, **options: object) -> None:
        raise Unavailable(f"cannot {what}")

    monkeypatch.setattr(Calls, "run", unanswered)

    answers = await bench.jobs.insert_many([bench.new(), bench.new(id="101")])

    assert [type(answer) for answer in answers] == [Job, OutcomeUnknown]


async def test_a_cancelled_caller_does_not_take_its_neighbours_along(bench: Bench) -> None:
    mine, neighbours = bench.new(), bench.new()
    inserting = asyncio.ensure_future(insert_one(bench.jobs, neighbours))
    cancelled = asyncio.ensure_future(insert_one(bench.jobs, mine))
    await asyncio.sleep(0)

    cancelled.cancel()

    assert await inserting == neighbours


async def test_jobs_inserted_at_once_share_one_write(bench: Bench) -> None:
    await bench.add()
    bench.faults.calls.clear()

    await asyncio.gather(*(bench.add() for _ in range(50)))

    assert bench.faults.calls == ["insert_many"]


async def test_closing_writes_what_waits_and_takes_nothing_more(bench: Bench) -> None:
    await bench.add()
    pending = [asyncio.ensure_future(bench.add()) for _ in range(5)]
    await asyncio.sleep(0)

    await bench.jobs.aclose()

    stored = await asyncio.gather(*pending)
    assert len(set(ids(stored))) == 5
    with pytest.raises(ShuttingDown):
        await bench.add()


async def test_a_queue_is_known_from_its_first_job_on(bench: Bench) -> None:
    await bench.add(queue="mail")
    await bench.add(queue="later", status=Status.SCHEDULED, run_at=NOW + SECOND)

    assert list(await bench.jobs.known_queues()) == ["later", "mail"]


async def test_many_new_queues_cost_one_write(bench: Bench) -> None:
    """Jobs for others may be in the same call, and wait for it."""
    names = [f"customer-{number}" for number in range(100)]

    await bench.jobs.insert_many([bench.new(queue=name) for name in names])

    assert bench.faults.calls == ["signals.bulk_write", "insert_many"]
    assert list(await bench.jobs.known_queues()) == sorted(names)


async def test_queues_that_a_process_has_forgotten_are_noted_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers so many names and no more, since clients make them up."""
    monkeypatch.setattr(wakeups, "MOST_TOUCHED", 10)
    names = [f"customer-{number}" for number in range(25)]

    await bench.jobs.insert_many([bench.new(queue=name) for name in names])

    assert bench.faults.calls == ["signals.bulk_write"] * 3 + ["insert_many"]
    assert len(bench.jobs._wakeups._touched) <= 10 + 10
    assert list(await bench.jobs.known_queues()) == sorted(names)
