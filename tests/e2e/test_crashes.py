"""Processes that die, freeze or are asked to go, while jobs are under way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

import aiohttp
import pytest
from databases import DatabaseProcess
from observers import WITNESSED, Client, Witness, eventually
from processes import ServiceProcess, frozen

Settings = Callable[..., dict[str, str]]
DRIVERS = [
    pytest.param({"DRIVER": "motor"}, id="motor"),
    pytest.param({"DRIVER": "pymongo"}, id="pymongo"),
    pytest.param({"DRIVER": "motor", "CLAIM": "single"}, id="single-claims"),
]


async def all_finished(client: Client, ids: list[str], *, seconds: float) -> dict[str, dict[str, object]]:
    """Wait until all of these are completed, then return them."""
    jobs: dict[str, dict[str, object]] = {}

    async def done() -> bool:
        nonlocal jobs
        jobs = await client.all_jobs()
        return all(jobs[job_id]["status"] == "completed" for job_id in ids)

    await eventually(done, seconds=seconds, what="every job completed")
    return {job_id: jobs[job_id] for job_id in ids}


@pytest.mark.timeout(360)  # claims of single jobs are slow on the embedded server, and slower beside other tests
@pytest.mark.parametrize("driver", DRIVERS)
async def test_after_kill_minus_9_every_accepted_job_still_ends_completed(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness, driver: dict[str, str]
) -> None:
    env = settings_for(WORKERS="50", LEASE_SECONDS="2", **driver)
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        held = await client.bulk([{"type": "hold"} for _ in range(5)])
        ids = held + await client.bulk([{"type": "work", "payload": {"seconds": 0.3}} for _ in range(295)])
        await witness.sees(60, seconds=90)
        await service.kill()
    ended = {job_id for job_id, _, _, what in witness.lines() if what == "ended"}
    unfinished = witness.began().keys() - ended
    witness.let_go()

    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        jobs = await all_finished(Client(http, service.url), ids, seconds=180)

    assert unfinished, "the kill came when nothing ran: the test shows nothing"
    assert all(1 <= job["retryCount"] <= 3 for job in jobs.values())  # type: ignore[operator]
    assert all(witness.began()[job_id] >= 2 for job_id in unfinished)
    assert all(jobs[job_id]["errors"][0]["type"] == "LeaseExpired" for job_id in unfinished)  # type: ignore[index]


async def test_sigterm_finishes_what_runs_and_gives_back_the_rest_with_its_attempt(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    env = settings_for(WORKERS="4", SHUTDOWN_GRACE_SECONDS="2")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        short = await client.bulk([{"type": "work", "payload": {"seconds": 0.8}} for _ in range(2)])
        long = await client.bulk([{"type": "work", "payload": {"seconds": 60}} for _ in range(2)])
        waiting = await client.bulk([{"type": "work", "payload": {}} for _ in range(5)])
        await witness.sees(4)

        code = await service.stop(seconds=20)

    assert code == 0
    async with ServiceProcess("api", env=env) as reader:
        jobs = await Client(http, reader.url).all_jobs()
    assert [(jobs[i]["status"], jobs[i]["retryCount"]) for i in short] == [("completed", 1)] * 2
    assert [(jobs[i]["status"], jobs[i]["retryCount"]) for i in long] == [("pending", 0)] * 2
    assert [(jobs[i]["status"], jobs[i]["retryCount"]) for i in waiting] == [("pending", 0)] * 5
    assert all("lease" not in job for job in jobs.values())


async def test_a_thread_that_does_not_return_does_not_hold_up_the_shutdown(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    env = settings_for(SHUTDOWN_GRACE_SECONDS="0.2")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        await client.bulk([{"type": "block", "payload": {"seconds": 600}}])
        await witness.sees(1)

        assert await service.stop(seconds=20) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_coroutine_that_cannot_be_cancelled_does_not_hold_up_the_shutdown(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness, processes: str
) -> None:
    env = settings_for(SHUTDOWN_GRACE_SECONDS="0.2", PROCESSES=processes)
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        await Client(http, service.url).bulk([{"type": "stubborn"}])
        await witness.sees(1)

        assert await service.stop(seconds=25) == 0


@pytest.mark.parametrize(
    ("number", "when", "exit_code"),
    [
        (signal.SIGTERM, "at once", -signal.SIGTERM),
        (signal.SIGTERM, "it runs", -signal.SIGTERM),
        (signal.SIGINT, "it runs", 1),  # by a KeyboardInterrupt
    ],
)
async def test_a_signal_to_what_a_task_forked_does_not_stop_the_service(
    http: aiohttp.ClientSession, settings_for: Settings, number: signal.Signals, when: str, exit_code: int
) -> None:
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as service:
        client, payload = Client(http, service.url), {"signal": number, "when": when}
        _, created = await client.post("/jobs", {"type": "end-what-it-forked", "payload": payload})

        _, job = await client.get(f"/jobs/{created['id']}?wait=40")

        assert job["result"] == {"exit_code": exit_code}
        assert (await client.get("/readyz"))[0] == 200
        assert await service.stop() == 0


@pytest.mark.parametrize("daemon", [True, False])
async def test_what_a_task_forked_does_not_hold_up_the_shutdown(
    http: aiohttp.ClientSession, settings_for: Settings, daemon: bool
) -> None:
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as service:
        client, payload = Client(http, service.url), {"by": "fork", "daemon": daemon}
        _, created = await client.post("/jobs", {"type": "leave-a-process", "payload": payload})
        _, job = await client.get(f"/jobs/{created['id']}?wait=30")
        try:
            assert await service.stop(seconds=25) == 0
        finally:
            with suppress(ProcessLookupError):
                os.kill(job["result"]["left"], signal.SIGKILL)


async def test_what_a_task_forked_keeps_neither_the_port_nor_the_connections_of_a_killed_service(
    http: aiohttp.ClientSession, settings_for: Settings, port: int
) -> None:
    env = settings_for(PORT=str(port))
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        address, client = urlsplit(service.url), Client(http, service.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"alive")  # and so it is open here when the task forks
        _, created = await client.post("/jobs", {"type": "leave-a-process", "payload": {"by": "fork"}})
        _, job = await client.get(f"/jobs/{created['id']}?wait=30")
        try:
            os.kill(service.pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                await reader.read()  # to its end, which a client has to see
            async with ServiceProcess("api", env=env) as again:
                assert again.url == service.url
        finally:
            os.kill(job["result"]["left"], signal.SIGKILL)
            writer.close()
        await service.wait()  # for the log to end, which the fork held open


async def test_clients_that_send_or_read_slowly_do_not_hold_up_the_shutdown(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    async with ServiceProcess("api", env=settings_for(SHUTDOWN_GRACE_SECONDS="0")) as service:
        client = Client(http, service.url)
        for _ in range(6):
            await client.bulk([{"type": "work", "payload": "x" * 60_000} for _ in range(10)])
        address = urlsplit(service.url)
        with socket.socket() as unread:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            unread.connect((address.hostname, address.port))
            unread.sendall(b"GET /jobs HTTP/1.1\r\nHost: x\r\n\r\n")
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            writer.write(b'Content-Length: 50\r\n\r\n{"ty')
            assert (await client.get("/livez"))[0] == 200  # and by now both of them are under way

            code = await service.stop(seconds=20)

        assert code == 0
        assert b"HTTP/1.1 503" in await reader.readline()
        writer.close()


async def test_while_stopping_enqueues_are_refused_and_reading_goes_on(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    env = settings_for(SHUTDOWN_GRACE_SECONDS="30")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        [job_id] = await client.bulk([{"type": "hold"}])
        await witness.sees(1)
        waiting = asyncio.create_task(client.get(f"/jobs/{job_id}?wait=60"))

        service.send(signal.SIGTERM)
        await service.wait_for_event("stopping")
        _, as_it_stood = await waiting
        async with http.post(client.url + "/jobs", json={"type": "work"}) as refused:
            problem = await refused.json(content_type=None)
        ready, _ = await client.get("/readyz")
        alive, _ = await client.get("/livez")
        read, _ = await client.get(f"/jobs/{job_id}")
        witness.let_go()

        assert as_it_stood["status"] == "processing"
        assert (refused.status, problem["status"]) == (503, 503)
        assert int(refused.headers["Retry-After"]) > 0
        assert (ready, alive, read) == (503, 200, 200)
        assert await service.wait(seconds=30) == 0


@pytest.mark.timeout(300)
async def test_one_api_and_three_workers_run_each_job_exactly_once(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    worker = settings_for()
    del worker["JOBQUEUE_PORT"]
    async with (
        ServiceProcess("api", env=settings_for()) as api,
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker),
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker),
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker),
    ):
        client = Client(http, api.url)
        ids: list[str] = []
        for _ in range(4):
            ids += await client.bulk([{"type": "work", "payload": {}} for _ in range(500)])
        jobs = await all_finished(client, ids, seconds=240)

    assert {job["retryCount"]: job.get("errors") for job in jobs.values()} == {1: None}
    assert set(witness.began().values()) == {1}
    assert len(witness.began()) == 2_000
    assert len({pid for pids in witness.pids().values() for pid in pids}) == 3


async def test_a_frozen_worker_changes_nothing_of_what_the_second_worker_wrote(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    worker = settings_for(LEASE_SECONDS="2")
    del worker["JOBQUEUE_PORT"]
    async with (
        ServiceProcess("api", env=settings_for()) as api,
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker) as first,
    ):
        client = Client(http, api.url)
        ids = await client.bulk([{"type": "hold"} for _ in range(10)])
        await witness.sees(10)
        async with AsyncExitStack() as still:
            await still.enter_async_context(frozen(first))
            witness.let_go()
            async with ServiceProcess("worker", "--tasks", WITNESSED, env=worker) as second:
                before = await all_finished(client, ids, seconds=60)
                await still.aclose()
                refused = [asyncio.create_task(_refusal(first, job_id)) for job_id in ids]
                await asyncio.gather(*refused)
                after = await all_finished(client, ids, seconds=30)

    assert after == before
    assert {job["result"]["pid"] for job in after.values()} == {second.pid}  # type: ignore[index]
    assert {job["retryCount"] for job in after.values()} == {2}


async def _refusal(process: ServiceProcess, job_id: str) -> None:
    """The worker says that it lost this job, whether it was told or found out when it wrote."""

    async def told() -> bool:
        return any(
            line.get("job_id") == job_id and line["event"] in ("job lease lost", "job outcome refused, lease lost")
            for line in process.events
        )

    await eventually(told, seconds=30, what=f"{job_id} given up by the frozen worker")


async def test_a_task_that_blocks_the_event_loop_keeps_its_lease(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    """The lease is 2 s, the loop is blocked for 6 s, and another worker is waiting to take over."""
    worker = settings_for(LEASE_SECONDS="2")
    del worker["JOBQUEUE_PORT"]
    async with (
        ServiceProcess("api", env=settings_for()) as api,
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker),
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker),
    ):
        client = Client(http, api.url)
        ids = await client.bulk([{"type": "block-the-loop", "payload": {"seconds": 6}}])
        jobs = await all_finished(client, ids, seconds=60)

    assert witness.began()[ids[0]] == 1
    assert jobs[ids[0]]["retryCount"] == 1


async def test_the_database_killed_under_load_loses_nothing_that_was_accepted(
    http: aiohttp.ClientSession, settings_for: Settings, database: DatabaseProcess
) -> None:
    env = settings_for(LEASE_SECONDS="3")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        accepted: list[str] = []
        problems: list[tuple[int, object]] = []
        stop = asyncio.Event()

        async def enqueue_until_stopped() -> None:
            while not stop.is_set():
                status, body = await client.post("/jobs", {"type": "work", "payload": {"seconds": 0.01}})
                if status == 201:
                    accepted.append(body["id"])
                else:
                    problems.append((status, body))

        callers = [asyncio.create_task(enqueue_until_stopped()) for _ in range(8)]
        await eventually(lambda: _at_least(accepted, 100), seconds=60, what="100 accepted")
        await database.kill()
        await eventually(lambda: _at_least(problems, 1), seconds=30, what="a problem document")
        alive, _ = await client.get("/livez")
        ready, _ = await client.get("/readyz")
        await database.start()
        count = len(accepted)
        await eventually(lambda: _at_least(accepted, count + 50), seconds=60, what="50 more accepted")
        stop.set()
        await asyncio.gather(*callers)
        await all_finished(client, accepted, seconds=60)

    assert (alive, ready) == (200, 503)
    assert {status for status, _ in problems} == {503}
    assert all(body["title"] and body["detail"] for _, body in problems)  # type: ignore[index]


async def _at_least(items: list[object] | list[str] | list[tuple[int, object]], count: int) -> bool:
    return len(items) >= count
