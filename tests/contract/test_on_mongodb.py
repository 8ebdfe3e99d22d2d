"""What only a real MongoDB can show: that each query runs on the index it names. Skipped without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from bench import NOW, Bench, ids
from bson import DatetimeMS, Int64

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
