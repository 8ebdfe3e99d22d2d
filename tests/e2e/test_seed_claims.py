"""What the READMEs of five other job queues promise, kept here by real processes on a real database.

Named after their words; docs/coming-from.md has which of them says what."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest
from observers import WITNESSED, Client, Witness, eventually
from processes import ServiceProcess

Settings = Callable[..., dict[str, str]]
COUNT = "{ JobStatus { pending running failed completed cancelled } }"


async def finished(client: Client, job_id: str) -> dict[str, Any]:
    _, job = await client.get(f"/jobs/{job_id}?wait=30")
    assert "finishedAt" in job, job
    return dict(job)


async def test_concurrency_safety_of_simultaneous_creations_and_status_updates(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    async with (
        ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as first,
        ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as second,
    ):
        clients = [Client(http, first.url), Client(http, second.url)]
        enqueue = {"query": 'mutation { Enqueue(task: "work", payload: {}) { id } }'}

        answers = await asyncio.gather(*(clients[number % 2].post("/graphql", enqueue) for number in range(100)))

        ids = {body["data"]["Enqueue"]["id"] for _, body in answers}
        for job_id in ids:
            assert (await finished(clients[0], job_id))["status"] == "completed"
        _, counts = await clients[1].post("/graphql", {"query": COUNT})
    assert len(ids) == 100
    assert witness.began() == dict.fromkeys(ids, 1)
    assert counts["data"]["JobStatus"] == {"pending": 0, "running": 0, "failed": 0, "completed": 100, "cancelled": 0}


async def test_failed_jobs_retry_up_to_3_times_with_exponential_backoff_and_then_are_failed(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    """Nothing sets the 3: it is the default. Half of each delay is fixed, so 0.2 s of 0.4 s, then 0.4 s of 0.8 s."""
    env = settings_for(SIMULATE="true", BACKOFF_BASE_SECONDS="0.4")
    async with ServiceProcess("serve", env=env) as service:
        client = Client(http, service.url)
        _, job = await client.post("/jobs", {"type": "fail"})

        ended = await finished(client, job["id"])

    assert (ended["status"], ended["retryCount"]) == ("failed", 3)
    failed_at = [datetime.fromisoformat(error["at"]) for error in ended["errors"]]
    assert len(failed_at) == 3
    rounding = timedelta(milliseconds=1)
    assert failed_at[1] - failed_at[0] >= timedelta(seconds=0.2) - rounding
    assert failed_at[2] - failed_at[1] >= timedelta(seconds=0.4) - rounding


async def test_the_idempotency_registry_prevents_duplicate_job_processing(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    order = {"type": "work", "payload": {}, "idempotency_key": "order-42", "priority": 5, "max_retries": 3}
    async with (
        ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as first,
        ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as second,
    ):
        clients = [Client(http, first.url), Client(http, second.url)]

        answers = await asyncio.gather(*(clients[number % 2].post("/jobs", order) for number in range(50)))

        [accepted] = [body for status, body in answers if status == 201]
        refused = [body for status, body in answers if status == 409]
        await finished(clients[0], accepted["id"])
        late, problem = await clients[1].post("/jobs", order)
        jobs = await clients[0].all_jobs()
    assert len(refused) == 49
    assert {body["jobId"] for body in refused} == {accepted["id"]}
    assert (late, problem["jobId"], problem["state"]) == (409, accepted["id"], "completed")
    assert jobs.keys() == {accepted["id"]}
    assert witness.began() == {accepted["id"]: 1}


async def test_backpressure_refuses_with_503_and_drops_nothing_that_was_accepted(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    worker = settings_for()
    del worker["JOBQUEUE_PORT"]
    job = {"type": "work", "payload": {}}
    async with ServiceProcess("api", env=settings_for(MAX_PENDING="5")) as api:
        client = Client(http, api.url)

        answers = [await client.post("/jobs", job) for _ in range(8)]

        accepted = [body["id"] for status, body in answers if status == 201]
        async with http.post(f"{client.url}/jobs", json=job) as refused:
            retry_after = int(refused.headers["Retry-After"])
        async with ServiceProcess("worker", "--tasks", WITNESSED, env=worker):
            ended = [await finished(client, job_id) for job_id in accepted]

            async def there_is_room_again() -> bool:
                return (await client.post("/jobs", job))[0] == 201

            await eventually(there_is_room_again, seconds=20, what="a job accepted again")
    assert [status for status, _ in answers] == [201] * 5 + [503] * 3
    assert (refused.status, retry_after > 0) == (503, True)
    assert [each["status"] for each in ended] == ["completed"] * 5


async def test_the_dead_letter_queue_quarantines_for_inspection_and_replay(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    env = settings_for(BACKOFF_BASE_SECONDS="0.05")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        _, job = await client.post("/jobs", {"type": "always-fails"})
        await finished(client, job["id"])

        _, quarantined = await client.get("/dlq")
        replayed = await client.post(f"/dlq/{job['id']}/retry")
        again = await finished(client, job["id"])
        missing, _ = await client.post("/dlq/nobody/retry")

    assert quarantined["count"] == 1
    [dead] = quarantined["jobs"]
    assert [(error["attempt"], error["message"]) for error in dead["errors"]] == [(n, "no luck") for n in (1, 2, 3)]
    assert replayed == (202, {"status": "requeued", "jobId": job["id"]})
    assert (again["status"], again["retryCount"], again["redrives"], len(again["errors"])) == ("failed", 3, 1, 6)
    assert missing == 404


async def test_metrics_show_the_health_of_the_system_in_real_time(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    env = settings_for(SIMULATE="true", BACKOFF_BASE_SECONDS="0.05")
    async with ServiceProcess("serve", env=env) as service:
        client = Client(http, service.url)
        await client.bulk([{"type": "email"} for _ in range(3)])
        await client.bulk([{"type": "fail", "maxRetries": 3}])
        await client.bulk([{"type": "email", "delaySeconds": 600} for _ in range(2)])
        await client.bulk([{"type": "sleep", "payload": {"seconds": 600}}])

        async def as_it_is() -> bool:
            _, metrics = await client.get("/metrics")
            wanted = {"processed": 3, "failed": 1, "retried": 2, "in_progress": 1, "queue_depth": 2, "dlq_size": 1}
            return bool(wanted.items() <= metrics.items())

        await eventually(as_it_is, seconds=30, what="metrics that show the three, the one, and what waits")
        assert (await client.get("/readyz"))[0] == 200


async def test_jobs_go_from_pending_over_processing_to_completed(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true", WORKERS="1")) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "sleep", "payload": {"seconds": 3}} for _ in range(2)])

        async def one_waits_for_the_other() -> bool:
            _, jobs = await client.get("/jobs")
            return {job["status"] for job in jobs} == {"pending", "processing"}

        await eventually(one_waits_for_the_other, seconds=20, what="one pending, the other processing")
        assert [(await finished(client, job_id))["status"] for job_id in ids] == ["completed"] * 2


async def test_the_worker_pool_has_the_configured_size_and_processes_jobs_concurrently(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for(WORKERS="3")) as service:
        client = Client(http, service.url)
        await client.bulk([{"type": "work", "payload": {"seconds": 600}} for _ in range(7)])

        async def three_run() -> bool:
            _, metrics = await client.get("/metrics")
            return (metrics["in_progress"], metrics["queue_depth"]) == (3, 4) and len(witness.began()) >= 3

        await eventually(three_run, seconds=30, what="three that run and four that wait")
        assert len(witness.began()) == 3


async def test_the_queue_buffer_drops_no_jobs_under_load(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    env = settings_for(QUEUE_SIZE="1", WORKERS="2")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)

        ids = await client.bulk([{"type": "work", "payload": {}} for _ in range(60)])

        assert {(await finished(client, job_id))["status"] for job_id in ids} == {"completed"}
    assert witness.began() == dict.fromkeys(ids, 1)


async def test_execution_logs_are_persisted_with_the_job(http: aiohttp.ClientSession, settings_for: Settings) -> None:
    env = settings_for(SIMULATE="true", BACKOFF_BASE_SECONDS="0.05")
    async with ServiceProcess("serve", env=env) as service:
        client = Client(http, service.url)
        _, job = await client.post("/jobs", {"type": "fail", "maxRetries": 2})
        await finished(client, job["id"])

        async def both_attempts_are_told() -> bool:
            _, lines = await client.get(f"/jobs/{job['id']}/logs")
            return [(line["attempt"], line["message"]) for line in lines] == [(n, "failing as asked") for n in (1, 2)]

        await eventually(both_attempts_are_told, seconds=20, what="a line of each attempt")


async def test_failure_injection_is_deterministic_or_random(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    """Of 60 jobs that fail with a chance of one half, all or none would fail once in 2**59 runs."""
    env = settings_for(SIMULATE="true", FAULTS="true", BACKOFF_BASE_SECONDS="0.05")
    async with ServiceProcess("serve", env=env) as service:
        client = Client(http, service.url)
        _, failing_twice = await client.post("/jobs", {"type": "email", "fault": {"failures": 2}})
        chancy = await client.bulk([{"type": "email", "maxRetries": 1, "fault": {"probability": 0.5}}] * 60)

        ended = await finished(client, failing_twice["id"])
        outcomes = {(await finished(client, job_id))["status"] for job_id in chancy}

    assert (ended["status"], ended["retryCount"], len(ended["errors"])) == ("completed", 3, 2)
    assert outcomes == {"completed", "failed"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_graceful_shutdown_leaves_no_partial_or_lost_jobs(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness, number: signal.Signals
) -> None:
    env = settings_for(WORKERS="5")
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "hold"} for _ in range(12)])

        async def five_are_in_flight() -> bool:
            return len(witness.began()) == 5

        await eventually(five_are_in_flight, seconds=30, what="5 attempts under way")
        service.send(number)
        await service.wait_for_event("stopping")
        refused, _ = await client.post("/jobs", {"type": "work", "payload": {}})
        witness.let_go()
        assert await service.wait() == 0
        await service.wait_for_event("stopped")
    in_flight = {job_id for job_id, _, _, what in witness.lines() if what == "began"}
    whole = {job_id for job_id, _, _, what in witness.lines() if what == "ended"}

    async with ServiceProcess("serve", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        jobs = [await finished(client, job_id) for job_id in ids]

    assert refused == 503
    assert (len(in_flight), in_flight) == (5, whole)
    assert {(job["status"], job["retryCount"]) for job in jobs} == {("completed", 1)}
    assert witness.began() == dict.fromkeys(ids, 1)


async def test_logs_are_structured_json(http: aiohttp.ClientSession, settings_for: Settings) -> None:
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true", LOG_FORMAT="auto")) as service:
        client = Client(http, service.url)
        _, job = await client.post("/jobs", {"type": "email"})

        line = await service.wait_for_event("job completed", job_id=job["id"])
        await service.stop()

    assert (line["level"], line["attempt"], line["type"]) == ("info", 1, "email")
    assert all(each.keys() >= {"time", "level", "event"} for each in service.events)


async def test_final_outcomes_are_persisted_for_inspection(http: aiohttp.ClientSession, settings_for: Settings) -> None:
    env = settings_for(SIMULATE="true")
    async with ServiceProcess("serve", env=env) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "echo", "payload": {"order": 42}}, {"type": "fail", "maxRetries": 1}])
        before = [await finished(client, job_id) for job_id in ids]
        await service.kill()

    async with ServiceProcess("api", env=env) as another:
        after = await Client(http, another.url).jobs(ids)

    assert after == before
    assert [job["status"] for job in after] == ["completed", "failed"]
    assert after[0]["result"] == {"order": 42}
    assert after[1]["errors"][0]["message"] == "failed, as it was asked to"
