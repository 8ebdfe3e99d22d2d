"""How errors look: RFC 9457 problems with all members, request ids, and nothing that is nobody's business."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from memory_jobs import MemoryJobs
from yarl import URL

import jobqueue.errors
from jobqueue.api.errors import TABLE
from jobqueue.api.routes import build_health_api
from jobqueue.clock import ServerClock
from jobqueue.errors import (
    ConfigurationError,
    JobQueueError,
    LeaseLost,
    OutcomeUnknown,
    ProcessFailed,
    QueueFull,
    SchemaConflict,
    Unavailable,
)
from jobqueue.service import JobService

Client = TestClient[web.Request, web.Application]
MEMBERS = {"type", "title", "status", "detail", "instance"}


async def problem_of(response: Any) -> dict[str, Any]:
    """The problem document in an answer, checked for what every one must have."""
    problem: dict[str, Any] = await response.json(content_type="application/problem+json")
    assert problem.keys() >= MEMBERS
    assert problem["status"] == response.status
    return problem


@pytest.mark.parametrize(
    ("error", "name", "retry_after"),
    [
        (Unavailable("mongodb://user:secret@host refused"), "unavailable", "2"),
        (OutcomeUnknown("the-job", "secret"), "outcome-unknown", "2"),
        (QueueFull("100000 jobs wait", retry_after_seconds=7), "queue-full", "7"),
    ],
)
async def test_what_passes_by_itself_is_503_and_says_when_to_come_back(
    client: Client, jobs: MemoryJobs, error: Exception, name: str, retry_after: str
) -> None:
    jobs.broken = error

    response = await client.post("/jobs", json={"id": "the-job"})

    problem = await problem_of(response)
    assert (response.status, problem["type"]) == (503, f"urn:problem-type:jobqueue:{name}")
    assert response.headers["Retry-After"] == retry_after
    assert problem["requestId"] == response.headers["X-Request-Id"]
    assert "secret" not in await response.text()


async def test_a_write_that_may_have_happened_names_its_job(client: Client, jobs: MemoryJobs) -> None:
    jobs.broken = OutcomeUnknown("made-here", "no answer")

    problem = await problem_of(await client.post("/jobs", json={"type": "a"}))

    assert problem["jobId"] == "made-here"
    assert "is safe" in problem["detail"]


async def test_a_stopping_service_takes_nothing_new_but_still_shows_what_it_has(
    client: Client, service: JobService
) -> None:
    await client.post("/jobs", json={"id": "a"})
    service.stop_accepting()

    for path, body in (
        ("/jobs", {"id": "b"}),
        ("/jobs/bulk", [{"id": "b"}]),
        ("/jobs/a/retry", None),
        ("/dlq/retry", {"all": True}),
    ):
        refused = await client.post(path, json=body)
        assert (refused.status, (await problem_of(refused))["title"]) == (503, "The service is stopping")
        assert "Retry-After" in refused.headers
    assert (await client.get("/jobs/a")).status == 200
    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/livez")).status == 200


async def test_without_its_database_the_process_lives_but_is_not_ready(client: Client, jobs: MemoryJobs) -> None:
    jobs.broken = Unavailable("gone")

    assert (await client.get("/livez")).status == 200
    for path in ("/readyz", "/healthz"):
        response = await client.get(path)
        assert response.status == 503
        assert "Retry-After" in response.headers

    jobs.broken = None
    assert (await client.get("/readyz")).status == 200


async def test_a_process_without_the_api_still_shows_its_health(service: JobService, jobs: MemoryJobs) -> None:
    app = build_health_api(service, clock=ServerClock())

    async with TestClient(TestServer(app)) as client:
        for path in ("/livez", "/readyz", "/healthz"):
            assert (await client.get(path)).status == 200
        links = (await (await client.get("/")).json())["links"]
        assert links == {"self": "/", "metrics": "/metrics", "liveness": "/livez", "readiness": "/readyz"}
        jobs.broken = Unavailable("gone")
        assert (await problem_of(await client.get("/readyz")))["status"] == 503
        assert (await problem_of(await client.get("/jobs")))["status"] == 404


@pytest.mark.parametrize("job_id", ["%00", "x" * 129])
async def test_the_store_is_not_asked_for_what_no_job_can_be_called(
    client: Client, jobs: MemoryJobs, job_id: str
) -> None:
    jobs.broken = ZeroDivisionError("asked")

    assert (await client.get(URL(f"/jobs/{job_id}", encoded=True))).status == 404


async def test_an_unforeseen_error_is_500_logged_under_the_request_id_and_tells_nothing(
    client: Client, jobs: MemoryJobs
) -> None:
    jobs.broken = ZeroDivisionError("secret detail")

    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        response = await client.get("/jobs", headers={"X-Request-Id": "mine"})

    text = await response.text()
    assert (await problem_of(response))["requestId"] == "mine"
    assert response.status == 500
    for leak in ("secret", "ZeroDivisionError", "Traceback", ".py"):
        assert leak not in text
    (entry,) = logged
    assert (entry["event"], entry["request_id"], entry["path"]) == ("request failed", "mine", "/jobs")
    assert entry["exc_info"]


@pytest.mark.parametrize("error", [LeaseLost("a", "b"), SchemaConflict("index"), ConfigurationError("wrong")])
async def test_an_error_of_ours_that_no_client_can_cause_is_500(
    client: Client, jobs: MemoryJobs, error: Exception
) -> None:
    jobs.broken = error

    assert (await client.get("/jobs/a")).status == 500


def test_every_error_that_a_client_can_meet_has_its_row() -> None:
    """The four without one cannot come out of what the API calls; a new error must choose."""
    ours = {
        kind
        for _, kind in inspect.getmembers(jobqueue.errors, inspect.isclass)
        if issubclass(kind, JobQueueError) and kind is not JobQueueError
    }

    assert ours - set(TABLE) == {LeaseLost, SchemaConflict, ProcessFailed, ConfigurationError}


async def test_a_path_without_a_route_is_a_problem(client: Client) -> None:
    response = await client.get("/no%20where")

    assert response.status == 404
    assert (await problem_of(response))["instance"] == "/no%20where"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("PUT", "/jobs", 405), ("POST", "/jobs", 415), ("GET", "/jobs/nobody", 404)],
)
async def test_what_is_the_fault_of_the_client_is_not_in_the_log(
    client: Client, method: str, path: str, status: int
) -> None:
    with structlog.testing.capture_logs() as logged:
        response = await client.request(method, path)

    assert (response.status, logged) == (status, [])


@pytest.mark.parametrize("path", ["/jobs", "/nowhere", "/docs"])
async def test_no_answer_lets_a_browser_guess_what_it_is_or_tells_versions(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers

    assert (headers["X-Content-Type-Options"], headers["Server"]) == ("nosniff", "jobqueue")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", {"GET", "HEAD", "POST"}),
        ("PATCH", "/jobs/a", {"GET", "HEAD", "DELETE"}),
        ("GET", "/jobs/a/cancel", {"POST"}),
        ("POST", "/dlq", {"GET", "HEAD"}),
        ("DELETE", "/jobs", {"GET", "HEAD", "POST"}),
        ("PROPFIND", "/", {"GET", "HEAD"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("POST", "/docs", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405_with_those_that_are_right(
    client: Client, method: str, path: str, allowed: set[str]
) -> None:
    response = await client.request(method, path)

    assert response.status == 405
    assert set(response.headers["Allow"].replace(" ", "").split(",")) == allowed
    assert method in (await problem_of(response))["detail"]


async def test_options_answers_what_is_allowed(client: Client) -> None:
    response = await client.options("/jobs/a")

    assert (response.status, await response.read()) == (204, b"")
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "DELETE"}
    assert (await client.options("/nowhere")).status == 404


@pytest.mark.parametrize("given", ["abc", "A.b_c:d-1", "x" * 128])
@pytest.mark.parametrize("path", ["/jobs", "/nowhere", "/jobs/nobody", "/docs"])
async def test_a_harmless_request_id_is_used_as_it_is(client: Client, given: str, path: str) -> None:
    response = await client.get(path, headers={"X-Request-Id": given})

    assert response.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "ü", '"quoted"', "a;b"])
async def test_any_other_request_id_is_replaced(client: Client, given: str) -> None:
    response = await client.get("/jobs", headers={"X-Request-Id": given})

    made = response.headers["X-Request-Id"]
    assert made != given
    assert len(made) == 16


async def test_requests_without_an_id_get_different_ones(client: Client) -> None:
    made = {(await client.get("/livez")).headers["X-Request-Id"] for _ in range(10)}

    assert len(made) == 10


async def test_a_problem_can_quote_what_no_utf8_can_carry(client: Client) -> None:
    body = b'{"type": "a", "payload": {"\\ud800": {"\\udfff": NaN}}}'

    response = await client.post("/jobs", data=body, headers={"Content-Type": "application/json"})

    assert response.status == 400
    assert any("\\ud800" in problem["pointer"] for problem in (await problem_of(response))["errors"])


async def test_the_instance_of_a_problem_is_bounded(client: Client) -> None:
    response = await client.get(URL("/jobs/" + "x" * 5000, encoded=True))

    problem = await problem_of(response)
    assert response.status == 404
    assert len(await response.text()) < 1024
    assert problem["instance"].startswith("/jobs/xxx")


def test_handlers_neither_catch_nor_format_errors() -> None:
    import jobqueue.api.handlers as handlers

    tree = ast.parse(inspect.getsource(handlers))

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Try)]


@pytest.mark.parametrize("path", ["/enqueue", "/jobs/a/cancel", "/jobs/a/retry"])
async def test_a_page_of_another_site_cannot_make_a_browser_change_anything(client: Client, path: str) -> None:
    refused = await client.post(path, headers={"Sec-Fetch-Site": "cross-site"})
    own_page = await client.post(path, headers={"Sec-Fetch-Site": "same-origin"})
    read = await client.get("/queues", headers={"Sec-Fetch-Site": "cross-site"})

    assert (await problem_of(refused))["status"] == 403
    assert own_page.status != 403
    assert read.status == 200
