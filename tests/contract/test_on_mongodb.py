"""What only a real MongoDB can show: that each query runs on the index it names, and what is made of errors that its
own fail points cause (`enableTestCommands`). Skipped without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from bench import NOW, Bench, ids
from bson import DatetimeMS, Int64
from pymongo.errors import OperationFailure

from jobqueue.errors import Unavailable
from jobqueue.job import Status
from jobqueue.mongo import indexes
from jobqueue.repository import JobFilter

EXPLAINED: dict[str, dict[str, Any]] = {
    indexes.CLAIM: {
        "filter": {"queue": {"$in": ["a", "b", "c", "d", "e"]}, "status": "pending"},
        "projection": {"_id": 1, "queue": 1, "priority": 1, "runAt": 1},
        "sort": {"priority": -1, "runAt": 1, "_id": 1},
    },
    indexes.DUE: {"filter": {"status": "scheduled", "runAt": {"$lt": NOW}}, "sort": {"runAt": 1}},
    indexes.LEASE: {
        "filter": {"status": "processing", "lease.expiresAt": {"$lt": NOW}},
        "sort": {"lease.expiresAt": 1},
    },
    indexes.NEWEST: {"filter": {"seq": {"$gte": 0, "$lt": 2**63 - 1}}, "sort": {"seq": -1}},
    indexes.STATUS_NEWEST: {
        "filter": {"status": "failed", "seq": {"$gte": 0, "$lt": 2**63 - 1}},
        "sort": {"seq": -1},
    },
    indexes.RETENTION: {
        "filter": {"status": "completed", "finishedAt": {"$lt": NOW}},
        "sort": {"finishedAt": 1},
    },
}


@pytest.fixture(params=["mongodb"])
def backend(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("mongodb_uri")
    return str(request.param)


def stages(plan: Any) -> set[str]:
    """The names of all stages of a winning plan."""
    if isinstance(plan, list):
        return set().union(*map(stages, plan)) if plan else set()
    if not isinstance(plan, dict):
        return set()
    inner = set().union(*map(stages, plan.values()))
    return inner | ({plan["stage"]} if "stage" in plan else set())


@pytest.mark.parametrize("index", EXPLAINED)
async def test_a_query_runs_on_its_index_without_a_sort_in_memory(bench: Bench, index: str) -> None:
    await bench.add_many(200)
    find = {"find": "jobs", "limit": 50, "hint": index, **EXPLAINED[index]}

    answer = await bench.raw.database.command({"explain": find, "verbosity": "executionStats"})

    used = stages(answer["queryPlanner"]["winningPlan"])
    assert "SORT" not in used
    assert "COLLSCAN" not in used
    assert answer["executionStats"]["totalKeysExamined"] <= 60


async def test_candidates_come_from_the_index_alone(bench: Bench) -> None:
    await bench.add_many(200, queue="a")
    find = {"find": "jobs", "limit": 50, "hint": indexes.CLAIM, **EXPLAINED[indexes.CLAIM]}

    answer = await bench.raw.database.command({"explain": find, "verbosity": "executionStats"})

    assert "FETCH" not in stages(answer["queryPlanner"]["winningPlan"])
    assert answer["executionStats"]["totalDocsExamined"] == 0


async def test_a_year_beyond_python_does_not_make_a_page_unreadable(bench: Bench) -> None:
    """(The embedded server refuses to store such a date.)"""
    beyond = DatetimeMS(253_402_300_800_000)  # the year 10000
    await bench.put(_id="far", seq=Int64(2), status="scheduled", runAt=beyond, payload=beyond)
    near = await bench.add(seq=1)

    page = await bench.jobs.list(JobFilter(), before=None, limit=10, max_bytes=1 << 20)

    assert ids(page.jobs) == ["far", near.id]
    assert page.jobs[0].run_at == datetime(9999, 12, 31, tzinfo=UTC)


async def test_a_claim_goes_on_when_its_index_is_missing(bench: Bench) -> None:
    job = await bench.add()
    await bench.raw.drop_index(indexes.CLAIM)

    assert await bench.candidate_ids() == [job.id]


# Fail points

LOST = {"closeConnection": True}
NO_MAJORITY = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
FailOnce = Callable[[str, dict[str, Any]], Awaitable[None]]


@pytest.fixture
async def fail_once(bench: Bench) -> AsyncIterator[FailOnce]:
    """Lets the next command of a name fail."""
    admin = bench.raw.database.client.admin

    async def fail(command: str, how: dict[str, Any]) -> None:
        data = {"failCommands": [command], **how}
        try:
            await admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})
        except OperationFailure as error:
            pytest.skip(f"the server takes no fail points, for lack of enableTestCommands ({error.code})")

    yield fail
    await admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.parametrize("how", [LOST, NO_MAJORITY], ids=["connection lost", "no majority"])
async def test_an_insert_that_fails_once_is_repeated_and_leaves_one_document(
    bench: Bench, fail_once: FailOnce, how: dict[str, Any]
) -> None:
    await fail_once("insert", how)

    job = await bench.add()

    assert await bench.raw.count_documents({}) == 1
    assert (await bench.jobs.get(job.id)).insert_id == job.insert_id


@pytest.mark.parametrize("how", [LOST, NO_MAJORITY], ids=["connection lost", "no majority"])
async def test_an_outcome_that_fails_once_is_repeated_and_recognised(
    bench: Bench, fail_once: FailOnce, how: dict[str, Any]
) -> None:
    [claim] = await bench.claim(await bench.add())
    await fail_once("update", how)

    await bench.jobs.complete(claim, {"n": 1}, at=NOW)

    done = await bench.jobs.get(claim.job_id)
    assert (done.status, done.result, done.lease) == (Status.COMPLETED, {"n": 1}, None)


@pytest.mark.parametrize("how", [LOST, NO_MAJORITY], ids=["connection lost", "no majority"])
async def test_a_claim_without_an_answer_is_settled_by_its_lease(
    bench: Bench, fail_once: FailOnce, how: dict[str, Any]
) -> None:
    jobs, lease = await bench.add_many(3), bench.lease()
    await fail_once("update", how)

    with pytest.raises(Unavailable):
        await bench.jobs.claim([job.id for job in jobs], lease, at=NOW)
    won = await bench.jobs.claimed([job.id for job in jobs], lease.id)

    owned = await bench.raw.count_documents({"lease.id": lease.id})
    assert len(won.jobs) == owned
    assert {job.retry_count for job in won.jobs} <= {1}
