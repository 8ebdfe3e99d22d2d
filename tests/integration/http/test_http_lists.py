"""The routes that show many things: jobs and dead letters by pages, queues, workers, what is here."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from memory_jobs import MemoryJobs
from yarl import URL

from jobqueue.api.answers import MAX_PAGE_BYTES
from jobqueue.job import Status
from jobqueue.repository import WorkerRecord

Client = TestClient[web.Request, web.Application]


async def post_many(client: Client, count: int, **fields: Any) -> list[str]:
    """Enqueue jobs and return their ids, the newest first."""
    items = [{"type": "a", "payload": number, **fields} for number in range(count)]
    answer = await (await client.post("/jobs/bulk", json=items)).json()
    return [item["id"] for item in reversed(answer["items"])]


async def follow(client: Client, path: str) -> list[list[dict[str, Any]]]:
    """Every page from this one on, by the Link header alone."""
    pages = []
    following: str | None = path
    while following is not None:
        response = await client.get(URL(following, encoded=True))
        assert response.status == 200, await response.text()
        page = await response.json()
        pages.append(page["jobs"] if isinstance(page, dict) else page)
        link = re.fullmatch(r'<([^>]+)>; rel="next"', response.headers.get("Link", ""))
        following = link[1] if link else None
    return pages


async def test_a_list_shows_the_newest_fifty_first(client: Client) -> None:
    ids = await post_many(client, 60)

    response = await client.get("/jobs")

    assert [job["id"] for job in await response.json()] == ids[:50]


@pytest.mark.parametrize("limit", [1, 7, 50, 60, 61, 500])
async def test_pages_follow_each_other_without_gaps_or_repeats(client: Client, limit: int) -> None:
    ids = await post_many(client, 60)

    pages = await follow(client, f"/jobs?limit={limit}")

    assert [job["id"] for page in pages for job in page] == ids
    assert all(len(page) <= limit for page in pages)


async def test_jobs_that_come_while_one_pages_do_not_disturb_the_pages(client: Client) -> None:
    ids = await post_many(client, 10)
    first = await client.get("/jobs?limit=5")
    await post_many(client, 10)

    rest = await follow(client, first.headers["Link"].split(">")[0].removeprefix("<"))

    assert [job["id"] for page in rest for job in page] == ids[5:]


async def test_the_next_page_keeps_the_filters(client: Client) -> None:
    wanted = await post_many(client, 3, type="b", tags=["x y&z"])
    await post_many(client, 3)

    pages = await follow(client, "/jobs?limit=1&type=b&tag=x%20y%26z")

    assert [[job["id"] for job in page] for page in pages] == [[job_id] for job_id in wanted]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=pending", {"plain", "tagged"}),
        ("status=scheduled", {"later"}),
        ("type=b", {"later"}),
        ("queue=slow", {"tagged"}),
        ("tag=red", {"tagged"}),
        ("tag=red&status=failed", set()),
        ("createdAfter=2000-01-01T00:00:00Z", {"plain", "tagged", "later"}),
        ("createdBefore=2000-01-01T00:00:00%2B02:00", set()),
        ("created_after=2199-01-01T00:00:00.000Z", set()),
    ],
)
async def test_a_list_can_be_filtered(client: Client, query: str, expected: set[str]) -> None:
    for body in (
        {"id": "plain"},
        {"id": "tagged", "queue": "slow", "tags": ["red"]},
        {"id": "later", "type": "b", "delaySeconds": 60},
    ):
        assert (await client.post("/jobs", json=body)).status == 201

    response = await client.get(URL(f"/jobs?{query}", encoded=True))

    assert {job["id"] for job in await response.json()} == expected


async def test_a_page_ends_early_rather_than_grow_too_large(client: Client, jobs: MemoryJobs) -> None:
    ids = await post_many(client, 12)
    for job_id in ids:
        jobs.put(job_id, payload="\0" * 100_000)  # six bytes each in JSON, so that seven jobs exceed 4 MiB

    pages = await follow(client, "/jobs")

    assert [len(page) for page in pages] == [6, 6]
    assert [job["id"] for page in pages for job in page] == ids


async def test_a_job_larger_than_a_page_is_a_page_of_its_own(client: Client, jobs: MemoryJobs) -> None:
    ids = await post_many(client, 2)
    for job_id in ids:
        jobs.put(job_id, payload="x" * (MAX_PAGE_BYTES + 1))

    pages = await follow(client, "/jobs")

    assert [[job["id"] for job in page] for page in pages] == [[ids[0]], [ids[1]]]


async def test_what_people_stored_by_hand_never_fails_a_list(client: Client, jobs: MemoryJobs) -> None:
    (job_id,) = await post_many(client, 1)
    jobs.put(job_id, payload={"nan": float("nan"), "object": object()})

    response = await client.get("/jobs")

    assert response.status == 200
    assert (await response.json())[0]["payload"]["nan"] is None


async def test_dead_letters_are_counted_and_paged(client: Client, jobs: MemoryJobs) -> None:
    ids = await post_many(client, 5)
    for job_id in ids[:3]:
        jobs.put(job_id, status=Status.FAILED)

    first = await (await client.get("/dlq?limit=2")).json()
    pages = await follow(client, "/dlq?limit=2")

    assert first["count"] == 3
    assert [job["id"] for page in pages for job in page] == ids[:3]


async def test_a_dead_letter_is_put_back_by_its_id(client: Client, jobs: MemoryJobs) -> None:
    (job_id,) = await post_many(client, 1)
    jobs.put(job_id, status=Status.FAILED)

    response = await client.post(f"/dlq/{job_id}/retry")

    assert (response.status, await response.json()) == (202, {"status": "requeued", "jobId": job_id})
    assert jobs.jobs[job_id].status is Status.PENDING


@pytest.mark.parametrize(
    ("body", "requeued", "more"),
    [
        ({"all": True}, 4, False),
        ({"all": True, "limit": 3}, 3, True),
        ({"all": True, "limit": 1_000}, 4, False),
        ({"type": "b"}, 2, False),
        ({"tag": "red", "limit": 1}, 1, True),
        ({"queue": "nowhere"}, 0, False),
    ],
)
async def test_dead_letters_are_put_back_by_a_filter(
    client: Client, jobs: MemoryJobs, body: dict[str, Any], requeued: int, more: bool
) -> None:
    failed = await post_many(client, 2, type="b", tags=["red"]) + await post_many(client, 2)
    (untouched,) = await post_many(client, 1, type="b")
    for job_id in failed:
        jobs.put(job_id, status=Status.FAILED)
    jobs.put(untouched, status=Status.CANCELLED)

    response = await client.post("/dlq/retry", json=body)

    assert (response.status, await response.json()) == (200, {"requeued": requeued, "more": more})
    assert sum(jobs.jobs[job_id].status is Status.PENDING for job_id in failed) == requeued
    assert jobs.jobs[untouched].status is Status.CANCELLED


async def test_dead_letters_are_removed_by_a_filter_and_nothing_else_is(client: Client, jobs: MemoryJobs) -> None:
    failed = await post_many(client, 3, type="b") + await post_many(client, 1)
    (untouched,) = await post_many(client, 1, type="b")
    for job_id in failed:
        jobs.put(job_id, status=Status.FAILED)

    first = await client.post("/dlq/delete", json={"type": "b", "limit": 2})
    second = await client.post("/dlq/delete", json={"type": "b"})

    assert (first.status, await first.json()) == (200, {"deleted": 2, "more": True})
    assert await second.json() == {"deleted": 1, "more": False}
    assert jobs.jobs.keys() == {failed[3], untouched}


@pytest.mark.parametrize(
    ("bounds", "ids"),
    [
        ({"createdBefore": "2026-01-02T00:00:00Z"}, {"a"}),
        ({"created_after": "2026-01-02T00:00:00Z"}, {"b", "c"}),
        ({"createdAfter": "2026-01-01T12:00:00Z", "createdBefore": "2026-01-03T00:00:00Z"}, {"b"}),
    ],
)
async def test_dead_letters_are_picked_by_their_age(
    client: Client, jobs: MemoryJobs, bounds: dict[str, str], ids: set[str]
) -> None:
    for day, job_id in enumerate("abc", start=1):
        await client.post("/jobs", json={"id": job_id})
        jobs.put(job_id, status=Status.FAILED, created_at=datetime(2026, 1, day, tzinfo=UTC))

    response = await client.post("/dlq/retry", json=bounds)

    assert (await response.json())["requeued"] == len(ids)
    assert {job_id for job_id, job in jobs.jobs.items() if job.status is Status.PENDING} == ids


async def test_queues_show_what_waits_and_what_runs(client: Client, jobs: MemoryJobs) -> None:
    ids = await post_many(client, 3, queue="slow")
    await post_many(client, 1, queue="slow", delaySeconds=60)
    jobs.put(ids[0], status=Status.PROCESSING)
    jobs.put(ids[1], status=Status.COMPLETED)
    await post_many(client, 1, queue="later", delaySeconds=60)

    later, slow = await (await client.get("/queues")).json()

    assert later == {"name": "later", "depth": 1, "pending": 0, "scheduled": 1, "processing": 0}
    assert slow.pop("oldestAgeSeconds") >= 0
    oldest = slow.pop("oldestPendingAt")
    assert oldest == (await (await client.get(f"/jobs/{ids[2]}")).json())["runAt"]
    assert slow == {"name": "slow", "depth": 2, "pending": 1, "scheduled": 1, "processing": 1}


async def test_workers_are_listed(client: Client, jobs: MemoryJobs, a_worker: WorkerRecord) -> None:
    jobs.live_workers = [a_worker]

    (worker,) = await (await client.get("/workers")).json()

    assert (worker["id"], worker["slots"], worker["running"]) == ("w1", 10, [])
    assert worker["heartbeatAt"].endswith("Z")


async def test_everything_that_the_index_links_to_is_there(client: Client) -> None:
    index = await (await client.get("/")).json()

    for path in index["links"].values():
        assert (await client.get(path)).status == 200, path
