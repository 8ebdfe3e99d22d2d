"""The OpenAPI document says what the routes do, and the documentation page needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import TestClient
from memory_jobs import MemoryJobs
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from yarl import URL

from jobqueue import __version__
from jobqueue.api.graphql.schema import SCHEMA
from jobqueue.api.routes import PAGES, ROUTES
from jobqueue.job import Lease, LeaseId, LogLine, Status, WorkerId
from jobqueue.repository import WORKER_SILENCE_SECONDS, WorkerRecord

Client = TestClient[web.Request, web.Application]
Document = dict[str, Any]


@pytest.fixture
async def document(client: Client) -> Document:
    found: Document = await (await client.get("/openapi.json")).json()
    return found


def test_operations_have_names_of_their_own() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)


async def test_the_document_is_valid_openapi_3_1(document: Document) -> None:
    OpenAPIV31SpecValidator(document).validate()

    assert document["info"]["version"] == __version__


async def test_the_document_has_every_route_of_the_application_and_no_other(client: Client, document: Document) -> None:
    served = {
        (route.method, route.resource.canonical) for route in client.app.router.routes() if route.resource is not None
    }
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}

    heads = {(hdrs.METH_HEAD, path) for method, path in served if method == hdrs.METH_GET}
    pages = {(hdrs.METH_GET, path) for path in PAGES}
    sockets = {(hdrs.METH_GET, "/graphql")}
    assert served == described | heads | pages | sockets


async def test_nothing_in_the_document_is_nullable_or_null(document: Document) -> None:
    text = json.dumps(document)

    assert '"null"' not in text
    assert "null" not in re.findall(r"[:\[,] *(null)", text)


async def test_a_job_has_what_it_always_has_required_and_the_rest_not(document: Document) -> None:
    job = document["components"]["schemas"]["JobView"]

    assert {"id", "type", "queue", "payload", "status", "retryCount", "runAt", "createdAt"} <= set(job["required"])
    assert not {"result", "lease", "errors", "tags", "finishedAt"} & set(job["required"])
    assert job["properties"]["runAt"] == {"type": "string", "format": "date-time"}


async def test_inputs_are_described_as_strict_as_they_are(document: Document) -> None:
    new_job = document["components"]["schemas"]["NewJobBody"]

    assert new_job["additionalProperties"] is False
    assert new_job["properties"]["maxRetries"] == {
        "description": "how many attempts it may have",
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
    }
    names = [parameter["name"] for parameter in document["paths"]["/jobs"]["get"]["parameters"]]
    assert set(names) == {
        "status", "type", "queue", "tag", "createdAfter", "createdBefore", "limit", "cursor", "id", "wait",
    }  # fmt: skip


async def test_it_is_said_which_processes_are_listed(document: Document) -> None:
    said = (
        "very process with workers (of `serve` or `worker`, not of `api`), with a sign of life in the last"
        f" {WORKER_SILENCE_SECONDS:.0f} seconds, whatever the lease"
    )
    (graphql,) = re.findall(r'"""([^"]+)"""\s+Workers:', SCHEMA.as_str())

    assert said in document["paths"]["/workers"]["get"]["responses"]["200"]["description"]
    assert said in " ".join(graphql.split())


async def test_the_bounds_of_a_query_parameter_are_described_in_words_of_json_schema(document: Document) -> None:
    schemas = {
        parameter["name"]: parameter["schema"]
        for path in ("/jobs", "/jobs/{id}")
        for parameter in document["paths"][path]["get"]["parameters"]
    }

    assert schemas["limit"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    assert schemas["wait"] == {"type": "number", "minimum": 0, "maximum": 60, "default": 0.0}


async def test_what_pages_of_other_sites_may_not_do_is_described_as_refused(document: Document) -> None:
    refused = {
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if "403" in item[method]["responses"]
    }

    assert refused == {(route.method.lower(), route.path) for route in ROUTES if route.method != hdrs.METH_GET}


def schema_of(document: Document, method: str, path: str, response: Any) -> dict[str, Any]:
    """The schema that the document promises for this answer."""
    described = document["paths"][path][method.lower()]["responses"][str(response.status)]
    schema: dict[str, Any] = described["content"][response.content_type]["schema"]
    return {"components": document["components"], **schema}


async def test_answers_are_as_the_document_says(
    client: Client, jobs: MemoryJobs, document: Document, a_worker: WorkerRecord
) -> None:
    jobs.live_workers = [a_worker]
    for job_id in ("a", "b", "c", "d"):
        await client.post("/jobs", json={"id": job_id, "payload": {"n": 1}, "tags": ["t"]})
    moment = jobs.jobs["a"].created_at
    lease = Lease(id=LeaseId("l"), worker_id=WorkerId("w"), expires_at=moment)
    jobs.put("a", status=Status.PROCESSING, lease=lease, started_at=moment, retry_count=1)
    jobs.lines["a"] = [LogLine(at=moment, attempt=1, level="info", message="m", fields={"n": [1, None]})]
    jobs.put("b", status=Status.FAILED, finished_at=moment)
    jobs.put("c", status=Status.FAILED, finished_at=moment, result=1)
    calls: list[tuple[str, str, str, Any]] = [
        ("POST", "/jobs", "/jobs", {"type": "x"}),
        ("POST", "/jobs", "/jobs", {"id": "a"}),
        ("POST", "/jobs", "/jobs", {"typ": "x"}),
        ("POST", "/jobs/bulk", "/jobs/bulk", [{"type": "x"}, {"id": "a"}, {}]),
        ("GET", "/jobs", "/jobs?limit=2", None),
        ("GET", "/jobs", "/jobs?id=a", None),
        ("GET", "/jobs/{id}", "/jobs/a", None),
        ("GET", "/jobs/{id}", "/jobs/nobody", None),
        ("POST", "/jobs/{id}/cancel", "/jobs/a/cancel", None),
        ("POST", "/jobs/{id}/cancel", "/jobs/d/cancel", None),
        ("POST", "/jobs/{id}/cancel", "/jobs/d/cancel", None),
        ("POST", "/jobs/{id}/retry", "/jobs/d/retry", None),
        ("DELETE", "/jobs/{id}", "/jobs/a", None),
        ("GET", "/dlq", "/dlq", None),
        ("POST", "/dlq/{id}/retry", "/dlq/b/retry", None),
        ("POST", "/dlq/delete", "/dlq/delete", {"type": "nobody"}),
        ("POST", "/dlq/retry", "/dlq/retry", {"all": True}),
        ("POST", "/graphql", "/graphql", {"query": "{ Jobs { id } nobody }"}),
        ("POST", "/graphql", "/graphql", {"query": "{ Jobs { id payload } }"}),
        ("POST", "/enqueue", "/enqueue", {"id": "e"}),
        ("POST", "/enqueue", "/enqueue", {"id": "e"}),
        ("GET", "/status", "/status?id=e", None),
        ("GET", "/status", "/status", None),
        ("GET", "/status/{id}", "/status/e", None),
        ("GET", "/status/{id}", "/status/nobody", None),
        ("GET", "/queues", "/queues", None),
        ("GET", "/jobs/{id}/logs", "/jobs/a/logs", None),
        ("GET", "/metrics", "/metrics", None),
        ("GET", "/workers", "/workers", None),
        ("GET", "/", "/", None),
        ("GET", "/livez", "/livez", None),
        ("GET", "/readyz", "/readyz", None),
        ("GET", "/healthz", "/healthz", None),
        ("GET", "/openapi.json", "/openapi.json", None),
    ]

    for method, template, path, body in calls:
        response = await client.request(method, path, json=body)
        schema = schema_of(document, method, template, response)
        errors = list(OAS31Validator(schema).iter_errors(await response.json()))
        assert not errors, (method, path, errors)

    assert {(method, template) for method, template, _, _ in calls} == {(r.method, r.path) for r in ROUTES}


async def test_the_page_loads_only_what_this_server_has_and_no_script_of_its_own(client: Client) -> None:
    page = await client.get("/docs")

    html = await page.text()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(loaded) == 4
    for path in loaded:
        assert (await client.get(f"/{path}")).status == 200, path
    assert "//" not in html
    assert re.findall(r"<script(?![^>]*src=)", html) == []
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")


async def test_the_script_that_starts_the_page_names_no_other_server(client: Client) -> None:
    response = await client.get("/docs/initializer.js")

    assert response.content_type == "text/javascript"
    assert "//" not in await response.text()
    assert 'url: "openapi.json"' in await response.text()


async def test_the_swagger_ui_that_is_served_can_show_openapi_3_1(client: Client) -> None:
    script = await (await client.get("/docs/swagger-ui-bundle.js")).text()

    assert "isOAS31" in script
    assert (await client.get("/docs/swagger-ui.css")).content_type == "text/css"


@pytest.mark.parametrize(
    "name", ["index.html", "..%2f__init__.py", "%2e%2e%2f%2e%2e%2f__init__.py", "swagger-ui.css%00", "%00", "x" * 5000]
)
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    assert (await client.get(URL(f"/docs/{name}", encoded=True))).status == 404
