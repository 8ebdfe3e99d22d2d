"""Enqueueing twice: the key of the body is refused, the key of the header is answered again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from memory_jobs import MemoryJobs

from jobqueue.api.errors import TYPE_PREFIX
from jobqueue.errors import KeyInUse, OutcomeUnknown, Unavailable
from jobqueue.job import AttemptError, Lease, LeaseId, Progress, Status, WorkerId

Client = TestClient[web.Request, web.Application]
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
REPLAYED = "Idempotent-Replayed"
BODY: dict[str, Any] = {"type": "order", "payload": {"b": 1, "a": [1.5, None]}, "max_retries": 7}


async def post(client: Client, key: str | None = KEY, *, path: str = "/jobs", **body: Any) -> ClientResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(path, json=body or BODY, headers=headers)


async def problem(response: ClientResponse) -> tuple[int, str]:
    """Its status, and the last part of its type."""
    return response.status, (await response.json())["type"].removeprefix(TYPE_PREFIX)


def live_through(jobs: MemoryJobs, job_id: str) -> None:
    """Let a job look as if everything had happened to it that can."""
    job = jobs.jobs[job_id]
    later = job.created_at + timedelta(seconds=9)
    jobs.put(
        job_id,
        status=Status.COMPLETED,
        retry_count=2,
        run_at=later,
        updated_at=later,
        started_at=later,
        finished_at=later,
        lease=Lease(id=LeaseId("secret"), worker_id=WorkerId("w1"), expires_at=later),
        cancel_requested_at=later,
        errors=[AttemptError(attempt=1, at=later, type="E", message="m")],
        result={"sum": 5},
        progress=Progress(percent=50),
        redrives=1,
    )


async def test_a_second_job_with_the_key_of_the_body_is_refused_with_what_became_of_the_first(
    client: Client, jobs: MemoryJobs
) -> None:
    first = await (await post(client, None, type="a", idempotencyKey="order-42")).json()
    live_through(jobs, first["id"])

    second = await post(client, None, type="a", idempotency_key="order-42")

    assert await problem(second) == (409, "duplicate-job")
    named = {name: (await second.json())[name] for name in ("jobId", "state", "result")}
    assert named == {"jobId": first["id"], "state": "completed", "result": {"sum": 5}}
    assert first["idempotencyKey"] == "order-42"
    assert len(jobs.jobs) == 1


@pytest.mark.parametrize("when", [{}, {"delaySeconds": 60}, {"runAt": "2199-01-01T00:00:00Z"}])
async def test_a_repeated_request_gets_the_first_answer_as_it_was_at_the_creation(
    client: Client, jobs: MemoryJobs, when: dict[str, Any]
) -> None:
    first = await post(client, **BODY, **when)
    live_through(jobs, (await first.json())["id"])

    second = await post(client, **BODY, **when)

    assert (first.status, second.status) == (201, 201)
    assert REPLAYED not in first.headers
    assert second.headers[REPLAYED] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert await second.read() == await first.read()
    assert len(jobs.jobs) == 1


async def test_the_short_form_is_replayed_too(client: Client, jobs: MemoryJobs) -> None:
    first = await post(client, path="/enqueue")
    live_through(jobs, (await first.json())["id"])

    second = await post(client, path="/enqueue")

    assert (first.status, second.status, second.headers[REPLAYED]) == (202, 202, "true")
    assert await second.read() == await first.read()
    assert (await first.json())["status"] == "pending"


async def test_another_body_with_the_same_key_is_422_and_names_the_first_job(client: Client) -> None:
    first = await (await post(client)).json()

    for other in ({**BODY, "max_retries": 8}, {**BODY, "payload": {"b": 1}}, {**BODY, "id": "mine"}, {"type": "x"}):
        second = await post(client, **other)

        assert await problem(second) == (422, "idempotency-key-reused")
        assert (await second.json())["jobId"] == first["id"]


@pytest.mark.parametrize(
    "same",
    [
        {"maxRetries": 7, "payload": {"a": [1.5, None], "b": 1}, "type": "order"},
        {**BODY, "priority": 0, "queue": "default"},
        {**BODY, "idempotencyKey": KEY},
    ],
    ids=["another order and spelling", "defaults spelt out", "the key in the body too"],
)
async def test_the_same_job_written_otherwise_is_the_same_request(client: Client, same: dict[str, Any]) -> None:
    first = await post(client)

    second = await post(client, **same)

    assert second.headers[REPLAYED] == "true"
    assert await second.read() == await first.read()


@pytest.mark.parametrize(
    "key", [KEY, f'"{KEY}"', f' "{KEY}" ', f'"{KEY}";a=1'], ids=["bare", "quoted", "spaces around", "parameter"]
)
async def test_a_key_may_be_a_structured_string_or_bare(client: Client, jobs: MemoryJobs, key: str) -> None:
    assert (await post(client, key)).status == 201

    assert [job.idempotency_key for job in jobs.jobs.values()] == [KEY]


async def test_a_quoted_key_may_hold_spaces_and_escaped_quotes(client: Client, jobs: MemoryJobs) -> None:
    assert (await post(client, r'"a \"b\" \\, c"')).status == 201

    assert [job.idempotency_key for job in jobs.jobs.values()] == [r'a "b" \, c']


@pytest.mark.parametrize(
    "key",
    ["", '""', '"open', 'a"b"', "two words", "a, b", '"a" "b"', r'"\n"', "x" * 256, '"' + "x" * 256 + '"', "ü"],
)
async def test_a_header_that_is_no_key_is_400_and_named(client: Client, jobs: MemoryJobs, key: str) -> None:
    response = await post(client, key)

    assert await problem(response) == (400, "invalid-input")
    assert (await response.json())["detail"].startswith("the header Idempotency-Key must ")
    assert not jobs.jobs


async def test_two_headers_are_400(client: Client, jobs: MemoryJobs) -> None:
    response = await client.post("/jobs", json=BODY, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "a")])

    assert await problem(response) == (400, "invalid-input")
    assert not jobs.jobs


async def test_two_different_keys_in_header_and_body_are_400(client: Client, jobs: MemoryJobs) -> None:
    response = await post(client, **BODY, idempotencyKey="another")

    assert await problem(response) == (400, "invalid-input")
    assert (await response.json())["errors"][0]["pointer"] == "/idempotencyKey"
    assert not jobs.jobs


async def test_header_and_body_name_the_same_thing(client: Client) -> None:
    """A job that was posted with the key in its body is replayed to who sends it in the header, and the other way."""
    first = await post(client, None, **BODY, idempotencyKey=KEY)

    assert (await post(client)).headers[REPLAYED] == "true"
    assert await problem(await post(client, None, **BODY, idempotencyKey=KEY)) == (409, "duplicate-job")
    assert first.status == 201


async def test_a_key_whose_job_was_made_by_hand_is_refused_not_replayed(client: Client, jobs: MemoryJobs) -> None:
    """Nobody knows which request it came of."""
    job_id = (await (await post(client)).json())["id"]
    jobs.put(job_id, fingerprint=None)

    assert await problem(await post(client)) == (409, "duplicate-job")


async def test_an_id_that_is_taken_is_409_whatever_the_key(client: Client) -> None:
    await post(client, None, id="101")

    assert await problem(await post(client, id="101")) == (409, "duplicate-job")


async def test_a_repeated_request_with_an_id_of_its_own_is_replayed(client: Client) -> None:
    first = await post(client, id="101")

    second = await post(client, id="101")

    assert await second.read() == await first.read()
    assert second.headers[REPLAYED] == "true"


async def test_a_key_is_free_again_when_its_job_is_gone(client: Client) -> None:
    first = await (await post(client)).json()
    await client.delete(f"/jobs/{first['id']}")

    second = await post(client, type="another")

    assert second.status == 201
    assert REPLAYED not in second.headers


@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("x", "unknown")])
async def test_what_was_refused_is_not_replayed(client: Client, jobs: MemoryJobs, error: Exception) -> None:
    jobs.broken = error
    assert (await post(client)).status == 503
    jobs.broken = None

    again = await post(client)

    assert again.status == 201
    assert REPLAYED not in again.headers


async def test_a_request_waits_for_the_first_one_and_shares_its_answer(client: Client, jobs: MemoryJobs) -> None:
    jobs.holding = asyncio.Event()
    requests = [asyncio.ensure_future(post(client)) for _ in range(10)]
    another = asyncio.ensure_future(post(client, type="another"))

    jobs.holding.set()
    answers = await asyncio.gather(*requests)

    assert {answer.status for answer in answers} == {201}
    assert len({await answer.read() for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert (await another).status == 422
    assert len(jobs.jobs) == 1


async def test_a_request_whose_first_one_takes_too_long_is_409(client: Client, jobs: MemoryJobs) -> None:
    jobs.broken = KeyInUse(KEY)

    response = await post(client)

    assert await problem(response) == (409, "idempotency-key-in-use")
    assert response.headers["Retry-After"] == "1"


async def test_when_the_first_one_fails_the_next_one_is_the_first(client: Client, jobs: MemoryJobs) -> None:
    jobs.holding = asyncio.Event()
    requests = [asyncio.ensure_future(post(client, type="same", id="taken")) for _ in range(3)]
    other = asyncio.ensure_future(client.post("/jobs", json={"id": "taken"}))

    jobs.holding.set()
    statuses = sorted([(await request).status for request in [*requests, other]])

    # Whoever got the id first; if that was the job without the key, all three are duplicates of it.
    assert statuses in ([201, 201, 201, 409], [201, 409, 409, 409])


async def test_the_header_does_not_go_with_many_jobs(client: Client, jobs: MemoryJobs) -> None:
    response = await client.post("/jobs/bulk", json=[BODY], headers={"Idempotency-Key": KEY})

    assert await problem(response) == (400, "invalid-input")
    assert not jobs.jobs


async def test_each_item_of_many_has_a_key_of_its_own(client: Client, jobs: MemoryJobs) -> None:
    keyed = [{"type": "a", "idempotencyKey": key} for key in ("k1", "k2", "k1")]

    answer = await (await client.post("/jobs/bulk", json=keyed)).json()

    assert [item["status"] for item in answer["items"]] == [201, 201, 409]
    assert answer["items"][2]["problem"]["jobId"] == answer["items"][0]["id"]
    assert len(jobs.jobs) == 2
