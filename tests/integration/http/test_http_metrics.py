"""Metrics in the form that the client asks for, and the logs of jobs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from memory_jobs import MemoryJobs
from multidict import CIMultiDict
from scraped import families_in

from jobqueue.api.routes import build_health_api
from jobqueue.clock import ServerClock
from jobqueue.errors import Unavailable
from jobqueue.job import LogLine, Status
from jobqueue.service import JobService

Client = TestClient[web.Request, web.Application]

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
OPENMETRICS, TEXT, JSON = "application/openmetrics-text", "text/plain", "application/json"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_2, OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.9", TEXT),
        ("text/plain", TEXT),
        ("TEXT/PLAIN; version=0.0.4", TEXT),
        ("text/plain;q=0.5,*/*;q=0.1", TEXT),
        ("text/plain,*/*", TEXT),
        ("text/plain;version=nonsense", TEXT),
        ("application/openmetrics-text;version=nonsense", OPENMETRICS),
        (None, JSON),
        ("*/*", JSON),
        (BROWSER, JSON),
        ("application/json", JSON),
        ("application/json, text/plain, */*", JSON),  # axios, unless told otherwise
        ("application/json;q=0.9,text/plain;q=0.1", JSON),
        ("application/json;q=0.1,text/plain;q=0.9", TEXT),
        ("text/plain;q=0", JSON),
        ("text/plain;q=nonsense", JSON),
        ("image/png", JSON),
        (",;,", JSON),
    ],
)
async def test_the_form_is_the_one_that_is_asked_for(client: Client, accept: str | None, content_type: str) -> None:
    response = await client.get("/metrics", headers={"Accept": accept} if accept else {})

    assert response.status == 200, await response.text()
    assert response.content_type == content_type
    assert response.headers["Vary"] == "Accept"


async def test_what_is_asked_for_may_be_in_several_headers(client: Client) -> None:
    response = await client.get("/metrics", headers=CIMultiDict([("Accept", "image/png"), ("Accept", "text/plain")]))

    assert response.content_type == TEXT


@pytest.mark.parametrize("accept", [PROMETHEUS_3, PROMETHEUS_2, "text/plain;version=0.0.4"])
async def test_what_a_scraper_gets_can_be_parsed_and_says_how(client: Client, jobs: MemoryJobs, accept: str) -> None:
    await client.post("/jobs", json={"type": "email", "queue": "mail"})

    response = await client.get("/metrics", headers={"Accept": accept})

    families = families_in(await response.text(), response.content_type)
    found = {sample.name: sample for family in families for sample in family.samples}
    assert "version=" in response.headers["Content-Type"]
    assert found["jobqueue_queue_jobs"].labels["queue"] == "mail"
    assert found["jobqueue_slots"].value == 0
    assert found["jobqueue_database_up"].value == 1


async def test_json_has_the_totals_of_the_database(client: Client, jobs: MemoryJobs) -> None:
    for job_id in ("a", "b", "c", "d", "e", "f"):
        await client.post("/jobs", json={"id": job_id})
    jobs.put("a", status=Status.COMPLETED)
    jobs.put("b", status=Status.FAILED)
    jobs.put("c", status=Status.PROCESSING)
    jobs.put("d", status=Status.SCHEDULED)
    jobs.put("e", queue="another", run_at=jobs.jobs["f"].run_at - timedelta(hours=1))

    totals = await (await client.get("/metrics")).json()

    assert totals.pop("oldest_pending_age_seconds") >= 3600
    assert totals == {
        "processed": 1,
        "failed": 1,
        "cancelled": 0,
        "retried": 0,
        "in_progress": 1,
        "queue_depth": 3,
        "pending": 2,
        "scheduled": 1,
        "dlq_size": 1,
        "idempotency_keys": 0,
    }


async def test_without_its_database_a_scrape_shows_the_process_and_json_is_refused(
    client: Client, jobs: MemoryJobs
) -> None:
    jobs.broken = Unavailable("away")

    scraped = await client.get("/metrics", headers={"Accept": PROMETHEUS_3})
    asked = await client.get("/metrics")

    assert scraped.status == 200
    assert "jobqueue_database_up 0.0" in await scraped.text()
    assert (asked.status, asked.content_type) == (503, "application/problem+json")


async def test_a_process_that_only_works_shows_its_metrics_beside_its_health(service: JobService) -> None:
    app = build_health_api(service, clock=ServerClock())

    async with TestClient(TestServer(app)) as client:
        response = await client.get("/metrics", headers={"Accept": PROMETHEUS_3})
        absent = await client.get("/jobs")

    assert (response.status, absent.status) == (200, 404)
    assert response.content_type == OPENMETRICS


async def test_the_log_of_a_job_is_an_array_of_lines(client: Client, jobs: MemoryJobs) -> None:
    await client.post("/jobs", json={"id": "a"})
    moment = jobs.jobs["a"].created_at
    jobs.lines["a"] = [LogLine(at=moment, attempt=1, level="info", message="sent", fields={"to": "x", "n": [1, None]})]

    lines = await (await client.get("/jobs/a/logs")).json()

    (line,) = lines
    assert line.pop("at").endswith("Z")
    assert line == {"attempt": 1, "level": "info", "message": "sent", "fields": {"to": "x", "n": [1, None]}}


async def test_a_job_without_a_log_has_an_empty_one_and_an_unknown_job_has_none(client: Client) -> None:
    await client.post("/jobs", json={"id": "a"})

    empty, unknown = await client.get("/jobs/a/logs"), await client.get("/jobs/nobody/logs")

    assert await empty.json() == []
    assert unknown.status == 404
