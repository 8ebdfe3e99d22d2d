"""Many jobs in one request: every item has its own outcome, and none harms its neighbours."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from hand_clock import HandClock
from memory_jobs import MemoryJobs

from jobqueue.api import bulk
from jobqueue.errors import InvalidJob
from jobqueue.job import JsonValue
from jobqueue.service import JobService, NewJob
from jobqueue.values import decode_plain

Client = TestClient[web.Request, web.Application]
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}


async def test_all_items_are_stored_in_their_order(client: Client, jobs: MemoryJobs) -> None:
    response = await client.post("/jobs/bulk", json=[{"id": "b"}, {"id": "a", "max_retries": 9}])

    assert response.status == 200
    assert await response.json() == {
        "accepted": 2,
        "rejected": 0,
        "items": [{"index": 0, "status": 201, "id": "b"}, {"index": 1, "status": 201, "id": "a"}],
    }
    assert jobs.jobs["b"].seq < jobs.jobs["a"].seq
    assert jobs.jobs["a"].max_retries == 9


async def test_lines_of_json_are_taken_as_well_blank_ones_left_out(client: Client, jobs: MemoryJobs) -> None:
    response = await client.post("/jobs/bulk", data=b'{"id": "a"}\r\n\n \r\n{"id": "b"}', headers=NDJSON)

    assert [item["id"] for item in (await response.json())["items"]] == ["a", "b"]
    assert jobs.jobs.keys() == {"a", "b"}


POISON: list[tuple[bytes, int, str]] = [
    (b'{"id": "taken"}', 409, ""),
    (b'{"id": "first"}', 409, ""),
    (b"{}", 400, ""),
    (b"7", 400, ""),
    (b"null", 400, ""),
    (b"[]", 400, ""),
    (b'{"type": "a b"}', 400, "/type"),
    (b'{"payload": NaN}', 400, "/payload"),
    (b'{"payload": {"a": 1, "a": 2}}', 400, "/payload/a"),
    (b'{"payload": 9223372036854775808}', 400, "/payload"),
    (b'{"payload": ' + b"[" * 65 + b"]" * 65 + b"}", 400, "/payload" + "/0" * 64),
    (b'{"payload": "\\ud800"}', 400, "/payload"),
    (b'{"type": "a", "typ": 1}', 400, "/typ"),
    (b'{"payload": "' + b"x" * 64 * 1024 + b'"}', 413, ""),
    (b'{"typ": 1, "payload": "' + b"x" * 64 * 1024 + b'"}', 413, ""),
]


@pytest.mark.parametrize("shape", ["array", "lines"])
@pytest.mark.parametrize(("poison", "status", "pointer"), POISON)
async def test_an_item_that_is_refused_says_why_and_its_neighbours_are_stored(
    client: Client, shape: str, poison: bytes, status: int, pointer: str
) -> None:
    await client.post("/jobs", json={"id": "taken"})
    items = [b'{"id": "first"}', poison, b'{"id": "last"}']
    body, headers = (b"[" + b",".join(items) + b"]", JSON) if shape == "array" else (b"\n".join(items), NDJSON)

    response = await client.post("/jobs/bulk", data=body, headers=headers)

    answer = await response.json()
    assert (response.status, answer["accepted"], answer["rejected"]) == (200, 2, 1)
    first, refused, last = answer["items"]
    assert (first["id"], last["id"]) == ("first", "last")
    assert (refused["index"], refused["status"], refused["problem"]["status"]) == (1, status, status)
    assert refused["problem"].keys() >= {"type", "title", "status", "detail", "instance"}
    assert refused["problem"]["instance"] == "/jobs/bulk#/1"
    assert {problem["pointer"] for problem in refused["problem"].get("errors", [])} <= {pointer}


async def test_an_item_of_a_large_array_that_cannot_be_measured_is_told_why(client: Client) -> None:
    large = b'{"payload": "' + b"x" * 40_000 + b'"}'
    body = b"[" + large + b',{"payload": "\\ud800"},' + large + b"]"

    response = await client.post("/jobs/bulk", data=body, headers=JSON)

    items = (await response.json())["items"]
    assert [item["status"] for item in items] == [201, 400, 201]
    assert "surrogate" in items[1]["problem"]["errors"][0]["detail"]


async def test_a_line_that_is_no_json_is_refused_alone(client: Client) -> None:
    response = await client.post("/jobs/bulk", data=b'{"id": "a"}\n{"id"\n\xff\n{"id": "b"}', headers=NDJSON)

    assert [item["status"] for item in (await response.json())["items"]] == [201, 400, 400, 201]


async def test_the_answer_is_200_also_when_every_item_was_refused(client: Client) -> None:
    response = await client.post("/jobs/bulk", json=[{}, {}])

    answer = await response.json()
    assert (response.status, answer["accepted"], answer["rejected"]) == (200, 0, 2)


async def test_nothing_to_store_is_no_mistake(client: Client) -> None:
    response = await client.post("/jobs/bulk", json=[])

    assert await response.json() == {"accepted": 0, "rejected": 0, "items": []}


async def test_ten_thousand_items_are_taken_and_one_more_is_not(client: Client, jobs: MemoryJobs) -> None:
    most = await client.post("/jobs/bulk", data=b'{"id":1}\n' * 10_000, headers=NDJSON)
    too_many = await client.post("/jobs/bulk", data=b'{"id":1}\n' * 10_001, headers=NDJSON)

    assert len((await most.json())["items"]) == 10_000
    assert too_many.status == 413
    assert "10000 items" in (await too_many.json())["detail"]
    assert jobs.jobs.keys() == {"1"}


@pytest.mark.parametrize(("body", "headers"), [(b"[" + b"7," * 10_000 + b"7]", JSON), (b"7\n" * 10_001, NDJSON)])
async def test_nothing_is_made_of_items_that_are_too_many(
    client: Client, monkeypatch: pytest.MonkeyPatch, body: bytes, headers: dict[str, str]
) -> None:
    made: list[object] = []
    monkeypatch.setattr(bulk, "_element", lambda *element: made.append(element))
    monkeypatch.setattr(bulk, "_line", made.append)

    response = await client.post("/jobs/bulk", data=body, headers=headers)

    assert response.status == 413
    assert made == []


def test_of_too_many_lines_no_more_are_taken_than_tell_it() -> None:
    assert len(bulk._lines(b"7\n" * 20_000)) == 10_001


async def test_lines_among_many_blank_ones_are_the_same_as_alone(client: Client) -> None:
    lines = [b" {}", b"\t{\r", b'{"id": "a"} \r', b" \x0b{}", b"7"]

    alone = await client.post("/jobs/bulk", data=b"\n".join(lines), headers=NDJSON)
    await client.delete("/jobs/a")
    among = await client.post("/jobs/bulk", data=b"\n \r\n".join([b"", *lines, b"\n" * 10_000]), headers=NDJSON)

    assert (await among.json()) == (await alone.json())


async def test_an_array_that_is_no_json_is_told_so_however_many_items_it_has(client: Client) -> None:
    response = await client.post("/jobs/bulk", data=b"[" + b"7," * 10_001 + b"]", headers=JSON)

    assert response.status == 400


async def test_others_are_answered_while_a_large_array_is_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, begun, answered = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read(body: bytes, **limits: int) -> JsonValue:
        loop.call_soon_threadsafe(begun.set)
        assert answered.wait(10)
        return decode_plain(body, **limits)

    monkeypatch.setattr(bulk, "decode_plain", read)
    body = b"[" + b" " * bulk.READ_AT_ONCE + b'{"id": "a"}]'
    posting = asyncio.create_task(client.post("/jobs/bulk", data=body, headers=JSON))
    await begun.wait()

    assert (await client.get("/livez")).status == 200

    answered.set()
    assert (await (await posting).json())["accepted"] == 1


async def turns_while(work: Coroutine[Any, Any, object]) -> int:
    """How often others have their turn on the event loop."""
    doing, turns = asyncio.create_task(work), 0
    while not doing.done():
        await asyncio.sleep(0)
        turns += 1
    await doing
    return turns


def refused(limit: int) -> NewJob:
    raise InvalidJob([])


async def test_others_have_their_turn_while_items_are_validated(service: JobService) -> None:
    clock = HandClock()

    def slow(limit: int) -> NewJob:
        clock.seconds += bulk.TURN_SECONDS
        return refused(limit)

    def enqueue(item: bulk.Item) -> Coroutine[Any, Any, object]:
        return bulk.enqueue_items(service, [item] * 10, item_limit=1, instance="", monotonic=clock.monotonic)

    assert await turns_while(enqueue(slow)) - await turns_while(enqueue(refused)) == 10


async def test_others_have_their_turn_while_items_are_shown(service: JobService) -> None:
    clock = HandClock()

    def enqueue(items: int) -> Coroutine[Any, Any, object]:
        return bulk.enqueue_items(service, [refused] * items, item_limit=1, instance="", monotonic=clock.monotonic)

    assert await turns_while(enqueue(3 * bulk.SHOWN_AT_ONCE)) - await turns_while(enqueue(1)) == 3


async def test_a_body_over_the_limit_of_bulk_requests_is_refused_whole(client: Client, jobs: MemoryJobs) -> None:
    body = io.BytesIO(json.dumps([{"payload": "x" * 60_000}] * 18).encode())

    response = await client.post("/jobs/bulk", data=body, headers=JSON)

    assert response.status == 413
    assert jobs.jobs == {}


@pytest.mark.parametrize("body", [b'{"id": "a"}', b'"a"', b"null", b"5"])
async def test_what_is_no_array_is_refused_whole(client: Client, body: bytes) -> None:
    response = await client.post("/jobs/bulk", data=body, headers=JSON)

    assert response.status == 400
    problem = {"pointer": "", "detail": "must be an array of jobs; POST /jobs takes one"}
    assert (await response.json())["errors"] == [problem]


async def test_a_stopping_service_refuses_the_whole(client: Client, service: JobService) -> None:
    service.stop_accepting()

    response = await client.post("/jobs/bulk", json=[{"id": "a"}])

    assert response.status == 503
    assert "Retry-After" in response.headers
