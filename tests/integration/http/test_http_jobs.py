"""The routes of one job: enqueue, show, wait, cancel, retry, delete."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from memory_jobs import MemoryJobs, ObservedFollowers, SilentDispatcher

from jobqueue.api.handlers import BodyLimits
from jobqueue.job import Backoff, Lease, LeaseId, Status, WorkerId
from jobqueue.service import JobService

Client = TestClient[web.Request, web.Application]


async def post(client: Client, **body: Any) -> dict[str, Any]:
    """Enqueue a job and return it."""
    response = await client.post("/jobs", json=body)
    assert response.status == 201, await response.text()
    job: dict[str, Any] = await response.json()
    return job


def run(jobs: MemoryJobs, job_id: str) -> None:
    """Let a job look as if a worker had claimed it."""
    expires_at = jobs.jobs[job_id].run_at
    lease = Lease(id=LeaseId("secret"), worker_id=WorkerId("w1"), expires_at=expires_at)
    jobs.put(job_id, status=Status.PROCESSING, lease=lease, retry_count=1)


async def test_a_posted_job_is_answered_with_201_its_place_and_itself(client: Client) -> None:
    response = await client.post("/jobs", json={"type": "email.send", "payload": {"to": "a@example.com"}})

    job = await response.json()
    assert response.status == 201
    assert response.content_type == "application/json"
    assert response.headers["Location"] == f"/jobs/{job['id']}"
    assert await (await client.get(response.headers["Location"])).json() == job
    assert job == {
        "id": job["id"],
        "type": "email.send",
        "queue": "default",
        "payload": {"to": "a@example.com"},
        "priority": 0,
        "status": "pending",
        "retryCount": 0,
        "maxRetries": 3,
        "runAt": job["createdAt"],
        "createdAt": job["createdAt"],
        "updatedAt": job["createdAt"],
    }


async def test_every_field_of_a_job_is_taken_in_camel_case(client: Client) -> None:
    job = await post(
        client,
        type="report",
        payload=None,
        id="r-1",
        queue="slow",
        priority=-5,
        maxRetries=7,
        runAt="2199-02-02T07:30:00.123456+02:00",
        timeoutSeconds=2.5,
        tags=["a", "b"],
    )

    assert job["id"] == "r-1"
    assert job["status"] == "scheduled"
    assert job["runAt"] == "2199-02-02T05:30:00.123Z"
    assert (job["queue"], job["priority"], job["maxRetries"]) == ("slow", -5, 7)
    assert (job["timeoutSeconds"], job["tags"]) == (2.5, ["a", "b"])


async def test_a_job_may_have_a_back_off_of_its_own(client: Client, jobs: MemoryJobs) -> None:
    both = await post(client, type="a", backoff={"baseSeconds": 5, "max_seconds": 60})
    one = await post(client, type="a", backoff={"maxSeconds": 60})

    assert both["backoff"] == {"baseSeconds": 5, "maxSeconds": 60}
    assert one["backoff"] == {"maxSeconds": 60}
    assert jobs.jobs[both["id"]].backoff == Backoff(base_seconds=5, max_seconds=60)


async def test_a_fault_is_refused_where_faults_are_off_by_a_problem_that_names_the_setting(
    client: Client, jobs: MemoryJobs
) -> None:
    one = await client.post("/jobs", json={"type": "a", "fault": {"failures": 2}})
    many = await client.post("/jobs/bulk", json=[{"type": "a", "fault": {"failures": 2}}, {"type": "a"}])

    assert one.status == 400
    (error,) = (await one.json())["errors"]
    assert error["pointer"] == "/fault"
    assert "JOBQUEUE_FAULTS=true" in error["detail"]
    assert [item["status"] for item in (await many.json())["items"]] == [400, 201]
    assert len(jobs.jobs) == 1


async def test_fields_may_be_written_in_snake_case(client: Client) -> None:
    job = await post(client, type="report", max_retries=7, delay_seconds=60, timeout_seconds=1)

    assert (job["maxRetries"], job["timeoutSeconds"], job["status"]) == (7, 1, "scheduled")


@pytest.mark.parametrize("body", [{"type": "a"}, {"payload": None}, {"id": "a"}])
async def test_one_of_type_payload_and_id_is_enough(client: Client, body: dict[str, Any]) -> None:
    assert (await post(client, **body))["type"] == body.get("type", "default")


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "x" * 128},
        {"priority": -1_000},
        {"priority": 1_000},
        {"maxRetries": 1},
        {"maxRetries": 100},
        {"delaySeconds": 0},
        {"delaySeconds": 100 * 365 * 86_400},
        {"timeoutSeconds": 7 * 86_400},
        {"runAt": "1970-01-01T00:00:00Z"},
        {"runAt": "9999-12-31T00:00:00Z"},
        {"runAt": "2026-02-02t05:30:00.123456789z"},
        {"tags": ["x" * 64] * 20},
        {"backoff": {"baseSeconds": 5, "maxSeconds": 5}},
        {"idempotencyKey": "k" * 255},
    ],
    ids=lambda fields: str(fields)[:40],
)
async def test_the_bounds_of_a_field_belong_to_what_is_taken(client: Client, fields: dict[str, Any]) -> None:
    job = await post(client, type="a", **fields)

    assert (await client.get(f"/jobs/{job['id']}")).status == 200


async def test_an_id_that_is_a_number_becomes_its_text(client: Client) -> None:
    assert (await post(client, id=101))["id"] == "101"
    assert (await client.get("/jobs/101")).status == 200


@pytest.mark.parametrize(
    "payload",
    [
        {"$set": {"a.b": 1}, "": "", "$ref": "x", "$id": 1},
        [1, 2.5, -(2**63), 2**63 - 1, 1e300],
        "übung 😀 \0",
        False,
    ],
)
async def test_a_payload_comes_back_as_it_went_in(client: Client, payload: Any) -> None:
    job = await post(client, type="a", payload=payload)

    assert job["payload"] == payload


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "application/vnd.api+json", "Application/JSON"]
)
async def test_every_way_to_say_json_is_understood(client: Client, content_type: str) -> None:
    response = await client.post("/jobs", data=b'{"type": "a"}', headers={"Content-Type": content_type})

    assert response.status == 201


async def test_a_body_as_large_as_is_allowed_is_taken(client: Client) -> None:
    frame = b'{"payload":""}'
    body = b'{"payload":"' + b"x" * (64 * 1024 - len(frame)) + b'"}'

    response = await client.post("/jobs", data=body, headers={"Content-Type": "application/json"})

    assert response.status == 201


async def test_a_body_is_sent_after_the_client_was_told_to_continue(client: Client) -> None:
    response = await client.post("/jobs", json={"type": "a"}, expect100=True)

    assert response.status == 201


@pytest.mark.parametrize("expected", ["100-Continue", "the unexpected"])
async def test_whatever_a_client_expects_it_is_answered(client: Client, expected: str) -> None:
    response = await client.post("/jobs", json={"type": "a"}, headers={"Expect": expected})

    assert response.status == 201


async def test_posting_an_id_again_is_a_conflict_that_tells_about_the_first_job(
    client: Client, jobs: MemoryJobs
) -> None:
    await post(client, id="a")
    jobs.put("a", status=Status.COMPLETED, result={"n": 1})

    response = await client.post("/jobs", json={"id": "a"})

    problem = await response.json()
    assert response.status == 409
    assert (problem["jobId"], problem["state"], problem["result"]) == ("a", "completed", {"n": 1})


async def test_a_job_can_be_asked_for_by_query_as_well_as_by_path(client: Client) -> None:
    job = await post(client, type="a")

    assert await (await client.get("/jobs", params={"id": job["id"]})).json() == job


async def test_nothing_internal_of_a_job_is_shown(client: Client, jobs: MemoryJobs) -> None:
    await post(client, id="a")
    run(jobs, "a")

    job = await (await client.get("/jobs/a")).json()

    assert job["lease"].keys() == {"workerId", "expiresAt"}
    assert not job.keys() & {"seq", "insertId", "lastOutcome", "fingerprint", "_id"}


async def test_a_job_that_is_known_to_the_client_is_answered_with_304_until_it_changes(
    client: Client, jobs: MemoryJobs
) -> None:
    await post(client, id="a")
    tag = (await client.get("/jobs/a")).headers["ETag"]

    any_state = await client.get("/jobs/a", headers={"If-None-Match": "*"})
    same = await client.get("/jobs/a", headers={"If-None-Match": f'"other", W/{tag}'})
    jobs.put("a", status=Status.CANCELLED)
    changed = await client.get("/jobs/a", headers={"If-None-Match": tag})

    assert any_state.status == 304
    assert (same.status, same.headers["ETag"], await same.read()) == (304, tag, b"")
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


async def test_the_query_form_has_the_same_etag(client: Client) -> None:
    await post(client, id="a")
    tag = (await client.get("/jobs/a")).headers["ETag"]

    assert (await client.get("/jobs?id=a", headers={"If-None-Match": tag})).status == 304


async def test_head_answers_as_get_without_the_body(client: Client) -> None:
    await post(client, id="a")
    get = await client.get("/jobs/a")

    head = await client.head("/jobs/a")

    assert (head.status, await head.read()) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("path", ["/jobs/a?wait=60", "/jobs?id=a&wait=60"])
async def test_waiting_ends_when_the_job_does(
    client: Client, jobs: MemoryJobs, followers: ObservedFollowers, path: str
) -> None:
    await post(client, id="a")
    waiting = asyncio.create_task(client.get(path))
    await followers.somebody_follows.wait()

    jobs.put("a", status=Status.COMPLETED, result=42)
    followers.moved("a")

    assert (await (await waiting).json())["result"] == 42


async def test_whoever_waits_as_long_as_may_be_is_answered_at_once_about_a_finished_job(
    client: Client, jobs: MemoryJobs
) -> None:
    await post(client, id="a")
    jobs.put("a", status=Status.COMPLETED)

    assert (await client.get("/jobs/a?wait=60")).status == 200


async def test_waiting_ends_when_the_time_is_over(client: Client) -> None:
    await post(client, id="a")

    response = await client.get("/jobs/a?wait=0.01")

    assert (await response.json())["status"] == "pending"


async def test_waiting_ends_at_once_when_the_service_stops(
    client: Client, service: JobService, followers: ObservedFollowers
) -> None:
    await post(client, id="a")
    waiting = asyncio.create_task(client.get("/jobs/a?wait=60"))
    await followers.somebody_follows.wait()

    service.stop_accepting()

    assert (await waiting).status == 200


async def test_cancelling_a_waiting_job_ends_it(client: Client) -> None:
    await post(client, id="a")

    response = await client.post("/jobs/a/cancel")

    assert response.status == 200
    assert (await response.json())["status"] == "cancelled"


async def test_cancelling_a_running_job_asks_it_to_stop_however_often_it_is_done(
    client: Client, jobs: MemoryJobs, dispatcher: SilentDispatcher
) -> None:
    await post(client, id="a")
    run(jobs, "a")

    first = await client.post("/jobs/a/cancel")
    second = await client.post("/jobs/a/cancel")

    assert (first.status, second.status) == (202, 202)
    assert await first.json() == await second.json()
    assert "cancelRequestedAt" in await first.json()
    assert dispatcher.interrupted == ["a", "a"]


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
async def test_a_failed_or_cancelled_job_can_be_put_back(client: Client, jobs: MemoryJobs, status: Status) -> None:
    await post(client, id="a")
    jobs.put("a", status=status, retry_count=3)

    response = await client.post("/jobs/a/retry")

    job = await response.json()
    assert response.status == 202
    assert (job["status"], job["retryCount"], job["redrives"]) == ("pending", 0, 1)


async def test_a_deleted_job_is_gone(client: Client) -> None:
    await post(client, id="a")

    response = await client.delete("/jobs/a")

    assert (response.status, await response.read()) == (204, b"")
    assert (await client.get("/jobs/a")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/jobs/a/cancel", Status.COMPLETED),
        ("POST", "/jobs/a/cancel", Status.FAILED),
        ("POST", "/jobs/a/retry", Status.PENDING),
        ("POST", "/jobs/a/retry", Status.PROCESSING),
        ("POST", "/jobs/a/retry", Status.COMPLETED),
        ("DELETE", "/jobs/a", Status.PROCESSING),
        ("POST", "/dlq/a/retry", Status.CANCELLED),
        ("POST", "/dlq/a/retry", Status.PENDING),
    ],
)
async def test_a_move_that_the_state_forbids_is_a_conflict_that_names_the_state(
    client: Client, jobs: MemoryJobs, method: str, path: str, status: Status
) -> None:
    await post(client, id="a")
    jobs.put("a", status=status)

    response = await client.request(method, path)

    problem = await response.json()
    assert response.status == 409
    assert (problem["jobId"], problem["state"]) == ("a", status)
    assert jobs.jobs["a"].status is status


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("DELETE", "/jobs/a", Status.PROCESSING, "cannot delete job 'a': it is processing; cancel it first"),
        (
            "POST",
            "/dlq/a/retry",
            Status.CANCELLED,
            "cannot redrive job 'a': it is cancelled, which is no dead letter; POST /jobs/a/retry puts it back, in"
            " GraphQL Retry",
        ),
        (
            "POST",
            "/jobs/a/retry",
            Status.COMPLETED,
            "cannot redrive job 'a': it is completed; to run it once more, enqueue it as a new job",
        ),
    ],
)
async def test_a_move_that_is_refused_where_there_is_another_way_names_it(
    client: Client, jobs: MemoryJobs, method: str, path: str, status: Status, detail: str
) -> None:
    await post(client, id="a")
    jobs.put("a", status=status)

    problem = await (await client.request(method, path)).json()

    assert problem["detail"] == detail


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/nobody"),
        ("GET", "/jobs?id=nobody"),
        ("GET", "/jobs/nobody?wait=60"),
        ("POST", "/jobs/nobody/cancel"),
        ("POST", "/jobs/nobody/retry"),
        ("DELETE", "/jobs/nobody"),
        ("POST", "/dlq/nobody/retry"),
    ],
)
async def test_a_job_that_is_not_there_is_404(client: Client, method: str, path: str) -> None:
    response = await client.request(method, path)

    problem = await response.json()
    assert response.status == 404
    assert (problem["type"], problem["jobId"]) == ("urn:problem-type:jobqueue:job-not-found", "nobody")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "application/json; charset=UTF-8", "Content-Encoding": "Identity"},
    ],
)
async def test_a_body_as_large_as_may_be_is_taken_however_its_headers_say_what_it_is(
    client: Client, limits: BodyLimits, headers: dict[str, str]
) -> None:
    head, tail = b'{"payload":"', b'"}'
    body = head + b"x" * (limits.max_payload_bytes - len(head + tail)) + tail

    response = await client.post("/jobs", data=body, headers=headers)

    assert response.status == 201
