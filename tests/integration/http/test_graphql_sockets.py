"""Subscriptions over graphql-transport-ws: they follow a job to its end, and what is no message harms nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient
from observers import eventually

from jobqueue import following
from jobqueue.job import Status
from jobqueue.service import JobService

if TYPE_CHECKING:
    from memory_jobs import MemoryJobs

Client = TestClient[web.Request, web.Application]
Socket = ClientWebSocketResponse
PROTOCOL = "graphql-transport-ws"
PATIENCE = 20.0
FOLLOW = "subscription ($id: String!) { JobUpdated(id: $id) { id status attempts progress { percent } } }"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Socket]:
    """A socket whose connection was acknowledged."""
    async with client.ws_connect("/graphql", protocols=[PROTOCOL]) as socket:
        await socket.send_json({"type": "connection_init"})
        assert await received(socket) == {"type": "connection_ack"}
        yield socket


async def received(socket: Socket) -> Any:
    return await socket.receive_json(timeout=PATIENCE)


async def closed_with(socket: Socket) -> int | None:
    message = await socket.receive(timeout=PATIENCE)
    assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED), message
    return socket.close_code


async def subscribe(socket: Socket, query: str, *, number: str = "1", **variables: Any) -> None:
    payload = {"query": query, "variables": variables}
    await socket.send_json({"id": number, "type": "subscribe", "payload": payload})


async def next_state(socket: Socket) -> dict[str, Any]:
    """The job in the next message."""
    message = await received(socket)
    assert message["type"] == "next", message
    assert "errors" not in message["payload"], message
    job: dict[str, Any] = message["payload"]["data"]["JobUpdated"]
    return job


async def next_error(socket: Socket) -> dict[str, Any]:
    """The error in the next message, whether something was executed or not."""
    message = await received(socket)
    (error,) = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
    shown: dict[str, Any] = error
    return shown


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds, seconds=PATIENCE, what="the condition")


async def enqueue(client: Client, job_id: str) -> None:
    assert (await client.post("/jobs", json={"id": job_id})).status == 201


def move(jobs: MemoryJobs, job_id: str, **changes: Any) -> None:
    jobs.put(job_id, updated_at=jobs.jobs[job_id].updated_at + timedelta(milliseconds=1), **changes)


async def test_a_job_is_shown_as_it_is_then_at_every_change_until_it_is_finished(
    client: Client, jobs: MemoryJobs
) -> None:
    await enqueue(client, "a")
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id="a")

        first = await next_state(socket)
        move(jobs, "a", status=Status.PROCESSING, retry_count=1)
        second = await next_state(socket)
        move(jobs, "a", status=Status.COMPLETED)
        third = await next_state(socket)

        assert first == {"id": "a", "status": "PENDING", "attempts": 0, "progress": None}
        assert (second["status"], second["attempts"], third["status"]) == ("RUNNING", 1, "COMPLETED")
        assert await received(socket) == {"id": "1", "type": "complete"}


async def test_a_finished_job_is_shown_once(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a")
    move(jobs, "a", status=Status.FAILED)
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id="a")

        assert (await next_state(socket))["status"] == "FAILED"
        assert (await received(socket))["type"] == "complete"


async def test_a_heartbeat_is_no_news(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a")
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id="a")
        await next_state(socket)
        looks = jobs.looks
        await until(lambda: jobs.looks >= looks + 3)
        move(jobs, "a", status=Status.CANCELLED)

        assert (await next_state(socket))["status"] == "CANCELLED"


@pytest.mark.parametrize("job_id", ["nobody", "", "x" * 200])
async def test_a_job_that_is_not_there_is_an_error_that_ends_it(client: Client, job_id: str) -> None:
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id=job_id)

        assert (await next_error(socket))["extensions"]["code"] == "NOT_FOUND"
        assert (await received(socket))["type"] == "complete"


async def test_a_job_that_is_deleted_ends_it(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a")
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id="a")
        await next_state(socket)
        await client.delete("/jobs/a")

        assert (await next_error(socket))["extensions"]["code"] == "NOT_FOUND"


async def test_many_followers_are_one_look_at_the_store(client: Client, jobs: MemoryJobs) -> None:
    for number in range(20):
        await enqueue(client, str(number))
    async with connected(client) as socket:
        for number in range(20):
            await subscribe(socket, FOLLOW, number=str(number), id=str(number))
            await next_state(socket)
        asked: list[int] = []
        see = jobs.revisions

        async def observed(job_ids: Any) -> Any:
            asked.append(len(job_ids))
            return await see(job_ids)

        jobs.revisions = observed  # type: ignore[method-assign]
        await until(lambda: len(asked) >= 2)

        assert set(asked) == {20}


async def test_nobody_is_followed_when_the_client_has_completed_or_left(
    client: Client, jobs: MemoryJobs, service: JobService
) -> None:
    await enqueue(client, "a")
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id="a")
        await subscribe(socket, FOLLOW, number="2", id="a")
        await next_state(socket)
        await next_state(socket)
        await socket.send_json({"id": "1", "type": "complete"})
        following_jobs = service._followers._following
        await until(lambda: len(following_jobs["a"]) == 1)

    await until(lambda: not following_jobs)


async def test_queries_and_mutations_go_over_the_socket_too_and_each_sees_the_store_anew(client: Client) -> None:
    look = '{ Jobs { id } Job(id: "a") { id } JobStatus { pending } }'
    answers = []
    async with connected(client) as socket:
        for query in (look, 'mutation { Enqueue(task: "a", id: "a") { status } }', look):
            await subscribe(socket, query)
            answers.append((await received(socket))["payload"]["data"])
            assert await received(socket) == {"id": "1", "type": "complete"}

    assert answers == [
        {"Jobs": [], "Job": None, "JobStatus": {"pending": 0}},
        {"Enqueue": {"status": "PENDING"}},
        {"Jobs": [{"id": "a"}], "Job": {"id": "a"}, "JobStatus": {"pending": 1}},
    ]


async def test_what_cannot_be_executed_is_an_error_with_a_code_and_the_socket_stays(client: Client) -> None:
    async with connected(client) as socket:
        for query in (
            "subscription { Nothing }",
            "",
            "{ " + "a: Jobs { id } " * 9 + "}",
            "query A { Jobs { id } } query B { Jobs { id } }",
        ):
            await subscribe(socket, query)
            message = await received(socket)
            assert message["type"] == "error"
            assert {each["extensions"]["code"] for each in message["payload"]} <= {"BAD_INPUT", "LIMIT_EXCEEDED"}
        await subscribe(socket, "query ($x: JSON) { Jobs { id } }", x=2**70)
        assert (await next_error(socket))["extensions"]["errors"][0]["pointer"] == "/variables/x"
        await subscribe(socket, "{ Jobs { id } }")
        assert (await received(socket))["type"] == "next"


@pytest.mark.parametrize(
    "text",
    ["[]", "5", "null", "{", '{"type": 5}', '{"type": "subscribe"}', '{"type": "subscribe", "id": []}',
     '{"type": "complete", "id": {}}', '{"type": "dance"}', '{"type": "subscribe", "id": "1"}', "[" * 5000],
    ids=lambda text: text[:45],
)  # fmt: skip
async def test_what_is_no_message_closes_the_socket_with_4400(client: Client, text: str) -> None:
    async with connected(client) as socket:
        await socket.send_str(text)

        assert await closed_with(socket) == 4400


@pytest.mark.parametrize(
    "payload", [5, [], {"query": 5}, {"query": "{ Jobs { id } }", "variables": []}, {"qurey": ""}], ids=json.dumps
)
async def test_a_payload_that_is_no_request_is_an_error_and_the_socket_stays(client: Client, payload: Any) -> None:
    async with connected(client) as socket:
        await socket.send_json({"id": "1", "type": "subscribe", "payload": payload})
        message = await received(socket)

        assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "BAD_INPUT")
        await socket.send_json({"type": "ping"})
        assert await received(socket) == {"type": "pong"}


async def test_binary_and_oversized_messages_close_the_socket(client: Client) -> None:
    async with connected(client) as socket:
        await socket.send_bytes(b"{}")
        assert await closed_with(socket) == 4400
    async with connected(client) as socket:
        await socket.send_str(json.dumps({"type": "ping", "payload": {"x": "x" * 65_536}}))
        assert await closed_with(socket) == 1009


async def test_nothing_is_executed_before_the_connection_is_acknowledged(client: Client) -> None:
    async with client.ws_connect("/graphql", protocols=[PROTOCOL]) as socket:
        await subscribe(socket, "{ Jobs { id } }")

        assert await closed_with(socket) == 4401


async def test_another_protocol_is_refused(client: Client) -> None:
    async with client.ws_connect("/graphql", protocols=["graphql-ws"]) as socket:
        assert await closed_with(socket) == 4406


async def test_pages_of_other_origins_may_not_connect(client: Client) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await client.ws_connect("/graphql", protocols=[PROTOCOL], headers={"Origin": "https://evil.example"})

    assert refused.value.status == 403
    own = f"http://{client.host}:{client.port}"
    async with client.ws_connect("/graphql", protocols=[PROTOCOL], headers={"Origin": own}) as socket:
        await socket.send_json({"type": "connection_init"})
        assert await received(socket) == {"type": "connection_ack"}


async def test_when_the_service_stops_followers_are_told_and_sockets_close(client: Client, service: JobService) -> None:
    await enqueue(client, "a")
    async with connected(client) as socket:
        await subscribe(socket, FOLLOW, id="a")
        await next_state(socket)

        service.stop_accepting()
        assert (await next_error(socket))["extensions"]["code"] == "UNAVAILABLE"
        assert (await received(socket))["type"] == "complete"
        closing = asyncio.create_task(client.server.close())

        assert await closed_with(socket) == 1001
        async with asyncio.timeout(PATIENCE):
            await closing
