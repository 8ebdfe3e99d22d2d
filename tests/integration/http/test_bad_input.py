"""Whatever is wrong with a request: the answer is a 4xx problem that names it, and the service goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from yarl import URL

Client = TestClient[web.Request, web.Application]
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
SKIPPED = ["Content-Type"]  # which the client would add by itself
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Case:
    """A request, the status it gets, and what must be named: a pointer in `errors`, a word in `detail`."""

    name: str
    method: str
    path: str
    status: int
    pointer: str | None = None
    says: str = ""
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def posting(name: str, body: bytes | Mapping[str, Any], pointer: str = "", says: str = "", **other: Any) -> Case:
    """A body for POST /jobs that is not valid."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(name, "POST", "/jobs", 400, pointer, says, encoded, JSON, **other)


def with_field(name: str, value: Any, *, at: str | None = None, says: str = "") -> Case:
    """A job with one field that is not valid."""
    return posting(f"{name} {json.dumps(value)[:40]}", {"type": "a", name: value}, at or f"/{name}", says)


def raw_payload(name: str, payload: bytes, *, at: str = "/payload", says: str = "") -> Case:
    """A payload as it is on the wire."""
    return posting(name, b'{"payload": ' + payload + b"}", at, says)


def declared(content_type: str | None, *, path: str = "/jobs", says: str = "Content-Type") -> Case:
    """A good body that says something wrong about itself."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    return Case(f"content type {content_type} at {path}", "POST", path, 415, None, says, b'{"type": "a"}', headers)


def encoded(encoding: str) -> Case:
    """A body that claims to be compressed, and is not."""
    headers = {**JSON, "Content-Encoding": encoding}
    return Case(f"encoding {encoding}", "POST", "/jobs", 415, None, "Content-Encoding", b"\x1f\x8b", headers)


def query(path: str, pointer: str, says: str = "") -> Case:
    """A query string that is not valid."""
    return Case(f"GET {path}", "GET", path, 400, pointer, says)


def absent(path: str, *, method: str = "GET") -> Case:
    """A path that names nothing."""
    return Case(f"{method} {path[:40]} of {len(path)}", method, path, 404)


SYNTAX = [
    posting("no body at all", b"", says="is not JSON"),
    posting("only spaces", b"   ", says="is not JSON"),
    posting("cut off", b'{"type": "a"', says="line 1, column 13"),
    posting("cut off in a string", b'{"type": "a', says="is not JSON"),
    posting("single quotes", b"{'type': 'a'}", says="is not JSON"),
    posting("trailing comma", b'{"type": "a",}', says="is not JSON"),
    posting("two values", b'{"type": "a"} {}', says="is not JSON"),
    posting("comment", b'{"type": "a"} // no', says="is not JSON"),
    posting("bare word", b"hello", says="is not JSON"),
    posting("form data", b"type=a&payload=1", says="is not JSON"),
    posting("xml", b"<job/>", says="is not JSON"),
    posting("control character in a string", b'{"type": "a\nb"}', says="is not JSON"),
    posting("unknown escape", b'{"type": "\\q"}', says="is not JSON"),
    posting("half an escape", b'{"type": "\\u12"}', says="is not JSON"),
    posting("leading zero", b'{"type": "a", "priority": 01}', says="is not JSON"),
    posting("hexadecimal", b'{"type": "a", "priority": 0x1}', says="is not JSON"),
    posting("NUL after the text", b'{"type": "a"}\0', says="is not JSON"),
]
ENCODINGS = [
    posting("byte order mark", b'\xef\xbb\xbf{"type": "a"}', says="is not JSON: it begins with a byte order mark"),
    posting("UTF-16", '{"type": "a"}'.encode("utf-16"), says="is not UTF-8"),
    posting("UTF-16 without a mark", '{"type": "a"}'.encode("utf-16-le"), says="is not JSON"),
    posting("Latin-1", b'{"payload": "\xfcbung"}', says="byte 13"),
    posting("overlong", b'{"payload": "\xc0\xaf"}', says="is not UTF-8"),
    posting("encoded surrogate", b'{"payload": "\xed\xa0\x80"}', says="is not UTF-8"),
    posting("gzip that does not say so", b"\x1f\x8b\x08\x00", says="is not UTF-8"),
    raw_payload("high surrogate alone", b'"\\ud83d"', says="surrogate"),
    raw_payload("low surrogate alone", b'["a", "\\ude00"]', at="/payload/1", says="surrogate"),
    raw_payload("surrogates in the wrong order", b'"\\ude00\\ud83d"', says="surrogate"),
]
SHAPES = [
    posting("an array", b"[]", says="must be a JSON object"),
    posting("null", b"null", says="must be a JSON object"),
    posting("a number", b"5", says="must be a JSON object"),
    posting("a text", b'"a"', says="must be a JSON object"),
    posting("true", b"true", says="must be a JSON object"),
    posting("nothing in it", b"{}", says="one of type, payload and id"),
    posting("nothing but details", {"queue": "a", "priority": 1}, says="one of type, payload and id"),
    posting("a typo", {"type": "a", "paylod": 1}, "/paylod", "is no field"),
    posting("wrong case", {"type": "a", "maxretries": 1}, "/maxretries", "is no field"),
    posting("a field of the document", {"type": "a", "status": "completed"}, "/status", "is no field"),
    posting("a field of the engine", {"type": "a", "seq": 1}, "/seq", "is no field"),
    posting("a Mongo operator", {"type": "a", "$where": "1"}, "/$where", "is no field"),
    posting("a key with a slash", {"type": "a", "a/b~": 1}, "/a~1b~0", "is no field"),
    posting("an empty key", {"type": "a", "": 1}, "/", "is no field"),
    posting("a field of a later version", {"type": "a", "uniqueKey": "k"}, "/uniqueKey", "is no field"),
    posting("both spellings", {"type": "a", "maxRetries": 1, "max_retries": 1}, "/max_retries", "twice"),
    posting("a wrong back-off", {"type": "a", "backoff": {"baseSeconds": -1}}, "/backoff/baseSeconds"),
    posting("a back-off as a text", {"type": "a", "backoff": {"max_seconds": "1"}}, "/backoff/max_seconds"),
    posting("a typo in a back-off", {"type": "a", "backoff": {"base": 1}}, "/backoff/base", "is no field"),
    posting("a wrong fault", {"type": "a", "fault": {"failures": "2"}}, "/fault/failures"),
    posting("a typo in a fault", {"type": "a", "fault": {"fail": 1}}, "/fault/fail", "is no field"),
    posting("a fault where there are none", {"type": "a", "fault": {"failures": 1}}, "/fault", "JOBQUEUE_FAULTS"),
    posting(
        "the very end of time",
        {"type": "a", "runAt": "9999-12-31T00:00:00.001Z"},
        "/runAt",
        "between 1970-01-01T00:00:00.000Z and 9999-12-31T00:00:00.000Z",
    ),
    posting("two times", {"type": "a", "runAt": "2030-01-01T00:00:00Z", "delaySeconds": 1}, "/runAt", "exclude"),
    posting("two times, snake", {"type": "a", "run_at": "2030-01-01T00:00:00Z", "delay_seconds": 1}, "/run_at"),
    posting("one key twice", b'{"type": "a", "type": "a"}', "/type", "more than once"),
    posting("one key twice, escaped", b'{"type": "a", "typ\\u0065": "a"}', "/type", "more than once"),
]
BAD_VALUES: Mapping[str, Sequence[Any]] = {
    "type": ("", "a b", "a/b", "ü", "a\n", "x" * 129, 5, True, None, ["a"], {}),
    "queue": ("", "a b", "*", "$ne", "x" * 129, 7, None, {"$ne": 1}),
    "id": ("", "a b", "a/b", "..", ".", "\0", "x" * 129, 1.5, True, None, [], {}),
    "priority": ("5", 5.0, 1.5, True, None, 1001, -1001, [], 10**30),
    "backoff": ({}, None, 5, {"baseSeconds": 2, "maxSeconds": 1}),
    "fault": ({}, None, 5, "x", {"crash": True, "loseLease": True}),
    "idempotencyKey": ("", "x" * 256, 5, None, True, ["k"], "\ud800"),
    "maxRetries": (0, -1, 101, "3", 3.0, False, None),
    "max_retries": (0, "3"),
    "timeoutSeconds": (0, -1, "5", True, None, 604_801, float("inf")),
    "delaySeconds": (-0.001, "5", True, None, 1e12, float("nan")),
    "runAt": (
        "2030-01-01T00:00:00",
        "2030-01-01",
        "2030-02-30T00:00:00Z",
        "2030-01-01T25:00:00Z",
        "2030-01-01T00:00:60Z",
        "2030-01-01 00:00:00Z",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59-10:00",
        "20300101T000000Z",
        "tomorrow",
        "",
        1893456000,
        None,
    ),
    "tags": ("a", None, {}, ["t"] * 21),
}
FIELDS = [
    *(with_field(name, value) for name, values in BAD_VALUES.items() for value in values),
    with_field("tags", ["a", ""], at="/tags/1"),
    with_field("tags", ["x" * 65], at="/tags/0"),
    with_field("tags", ["a", 5, "b"], at="/tags/1"),
]
VALUES = [
    raw_payload("NaN", b"NaN", says="finite"),
    raw_payload("Infinity", b"[-Infinity]", at="/payload/0", says="finite"),
    raw_payload("1e400", b'{"a": 1e400}', at="/payload/a", says="finite"),
    raw_payload("an integer beyond int64", b"9223372036854775808", says="64 bits"),
    raw_payload("a number of 4301 digits", b"1" * 4_301, says="64 bits"),
    raw_payload("a number of 50000 digits", b"-" + b"1" * 50_000, says="64 bits"),
    raw_payload("NUL in a key", b'{"a\\u0000b": 1}', at="/payload/a\0b", says="NUL"),
    raw_payload("a key twice", b'{"a": [{"b": 1, "b": 1}]}', at="/payload/a/0/b", says="more than once"),
    raw_payload("65 levels", b"[" * 65 + b"]" * 65, at="/payload" + "/0" * 64, says="64 levels"),
    raw_payload("500 levels", b'{"a":' * 500 + b"1" + b"}" * 500, at="/payload" + "/a" * 64, says="64 levels"),
    posting("30000 brackets", b"[" * 30_000, says="64 levels"),
    posting("10000 objects", b'{"a":' * 10_000, says="64 levels"),
    posting("30000 closed brackets", b"[" * 30_000 + b"]" * 30_000, says="64 levels"),
]
SIZES = [
    Case("too large", "POST", "/jobs", 413, None, "65536 bytes", b'{"payload":"' + b"x" * 65_536 + b'"}', JSON),
    Case("too much space", "POST", "/jobs", 413, None, "65536 bytes", b" " * 65_537, JSON),
    Case("too large for enqueue", "POST", "/enqueue", 413, None, "65536 bytes", b" " * 65_537, JSON),
    Case("too large for redrive", "POST", "/dlq/retry", 413, None, "65536 bytes", b" " * 65_537, JSON),
    Case("too large for bulk", "POST", "/jobs/bulk", 413, None, "1048576 bytes", b" " * 1_048_577, JSON),
    Case("too many items", "POST", "/jobs/bulk", 413, None, "10000 items", b"[" + b"{}," * 10_000 + b"{}]", JSON),
]
DECLARATIONS = [
    *(declared(content_type) for content_type in (None, FORM, "text/plain", "text/json", "application/jsonp", "json")),
    *(declared(content_type) for content_type in ("application/x-ndjson", "application/", ";", "multipart/form-data")),
    declared(FORM, path="/jobs/bulk"),
    declared("text/plain", path="/dlq/retry"),
    declared("application/json; charset=latin-1", says="UTF-8"),
    declared("application/json; charset=utf-16", says="UTF-8"),
    *(encoded(encoding) for encoding in ("gzip", "br", "deflate", "zstd", "wat")),
]
BULK = [
    Case("bulk: no JSON", "POST", "/jobs/bulk", 400, "", "is not JSON", b"[{]", JSON),
    Case("bulk: no array", "POST", "/jobs/bulk", 400, "", "must be an array", b"{}", JSON),
    Case("bulk: nothing", "POST", "/jobs/bulk", 400, "", "is not JSON", b"", JSON),
    Case("bulk: lines that call themselves JSON", "POST", "/jobs/bulk", 400, "", "is not JSON", b"{}\n{}", JSON),
    Case("bulk: a query", "POST", "/jobs/bulk?a=1", 400, "/a", "is no field", b"[]", JSON),
]
REDRIVE = [
    Case(f"redrive {body.decode()}", "POST", "/dlq/retry", 400, pointer, says, body, JSON)
    for body, pointer, says in (
        (b"", "", "is not JSON"),
        (b"[]", "", "must be a JSON object"),
        (b"{}", "", "one of type, queue, tag, createdAfter and createdBefore"),
        (b'{"limit": 5}', "", "one of type, queue, tag, createdAfter and createdBefore"),
        (b'{"all": false}', "/all", ""),
        (b'{"all": "true"}', "/all", ""),
        (b'{"all": 1}', "/all", ""),
        (b'{"all": true, "type": "a"}', "/all", "without"),
        (b'{"type": ""}', "/type", ""),
        (b'{"type": {"$ne": null}}', "/type", ""),
        (b'{"all": true, "limit": 0}', "/limit", ""),
        (b'{"all": true, "limit": 1001}', "/limit", ""),
        (b'{"all": true, "limit": "5"}', "/limit", ""),
        (b'{"status": "failed", "all": true}', "/status", "is no field"),
    )
]
QUERIES = [
    *(query(f"/jobs?limit={value}", "/limit") for value in ("0", "501", "5.0", "1e2", "%205", "", "9" * 99)),
    *(query(f"/jobs?limit={value}", "/limit", "from 1 to 500") for value in ("-1", "x")),
    query("/jobs?limit=5&limit=6", "/limit", "more than once"),
    query("/jobs?Limit=5", "/Limit", "is no field"),
    query("/jobs?status=running", "/status", "'pending'"),
    query("/jobs?status=PENDING", "/status"),
    query("/jobs?status=pending&status=failed", "/status", "more than once"),
    query("/jobs?status[$ne]=pending", "/status[$ne]", "is no field"),
    query("/jobs?type=a%20b", "/type"),
    query("/jobs?queue=", "/queue"),
    query("/jobs?tag=", "/tag"),
    query("/jobs?tag=" + "x" * 65, "/tag"),
    query("/jobs?createdAfter=yesterday", "/createdAfter", "RFC 3339"),
    query("/jobs?createdAfter=2026-01-01T00:00:00+01:00", "/createdAfter", "write its + as %2B"),
    query("/jobs?createdBefore=2026-01-01T00:00:00+02:00", "/createdBefore", "RFC 3339"),
    query("/jobs?created_before=2026-13-01T00:00:00Z", "/created_before"),
    query("/jobs?createdAfter=2026-01-01T00:00:00Z&created_after=2026-01-01T00:00:00Z", "/created_after", "twice"),
    *(query(f"/jobs?cursor={value}", "/cursor", "Link") for value in ("", "x", "A" * 16, "AQAGWzk5MjAwOnx4", "%00")),
    query("/jobs?wait=5", "/wait", "needs an id"),
    query("/jobs?id=a&limit=5", "/limit", "not with id"),
    query("/jobs?id=a&id=b", "/id", "more than once"),
    query("/jobs?offset=5", "/offset", "is no field"),
    query("/jobs?%00=5", "/\0", "NUL"),
    query("/jobs/a?wait=61", "/wait"),
    query("/jobs/a?wait=-1", "/wait", "from 0 to 60"),
    query("/jobs/a?wait=nan", "/wait", "number of seconds"),
    query("/jobs/a?wait=inf", "/wait"),
    query("/jobs/a?wait=", "/wait"),
    query("/jobs/a?wait=1&wait=2", "/wait", "more than once"),
    query("/jobs?id=a&wait=1e1", "/wait"),
    query("/dlq?status=failed", "/status", "is no field"),
    query("/dlq?limit=x", "/limit"),
    query("/dlq?cursor=x", "/cursor"),
    query("/queues?name=a", "/name", "is no field"),
    query("/workers?x", "/x", "is no field"),
    query("/?x=1", "/x", "is no field"),
    Case("POST with a query", "POST", "/jobs?type=a", 400, "/type", "is no field", b'{"type": "a"}', JSON),
    Case("DELETE with a query", "DELETE", "/jobs/a?force=true", 400, "/force", "is no field"),
]
PATHS = [
    *(absent(f"/jobs/{job_id}") for job_id in ("nobody", "%00", "a%00b", "%FF", "%ED%A0%80", "a%2Fb", "%", "%zz")),
    *(
        absent(f"/jobs/{job_id}")
        for job_id in ("x" * 129, "x" * 7_000, "%F0%9F%98%80", "a%20b", "$where", "{}", "[$ne]")
    ),
    *(absent(f"/jobs?id={job_id}") for job_id in ("", "%00", "%FF", "x" * 129, "x" * 7_000, "a/b", "..", "$ne")),
    absent("/jobs/%2e%2e/%2e%2e/etc/passwd"),
    absent("/jobs/..%2f..%2fetc%2fpasswd"),
    absent("/jobs/..%5c..%5cwindows"),
    absent("/docs/..%2f..%2fapp.py"),
    absent("/docs/%2e%2e/handlers.py"),
    absent("/jobs/"),
    absent("/jobs/a/b"),
    absent("/JOBS"),
    absent("/favicon.ico"),
    *(absent(f"/jobs/{job_id}", method="DELETE") for job_id in ("nobody", "%00", "x" * 129)),
    *(absent(f"/jobs/{job_id}/cancel", method="POST") for job_id in ("nobody", "%00", "a%2Fb", "x" * 129)),
    *(absent(f"/jobs/{job_id}/retry", method="POST") for job_id in ("nobody", "%ED%A0%80")),
    *(absent(f"/dlq/{job_id}/retry", method="POST") for job_id in ("nobody", "%00", "x" * 129)),
]
METHODS = [
    Case(f"{method} {path}", method, path, 405, None, method)
    for method, path in (
        ("PUT", "/jobs"), ("DELETE", "/jobs"), ("PATCH", "/jobs/a"), ("POST", "/jobs/a"), ("PUT", "/jobs/bulk"),
        ("GET", "/jobs/a/cancel"), ("GET", "/dlq/retry"), ("POST", "/queues"), ("DELETE", "/"), ("TRACE", "/jobs"),
    )
]  # fmt: skip

CASES = [
    *SYNTAX, *ENCODINGS, *SHAPES, *FIELDS, *VALUES, *SIZES, *DECLARATIONS, *BULK, *REDRIVE, *QUERIES, *PATHS, *METHODS,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_is_a_problem_that_names_it_and_the_service_goes_on(client: Client, case: Case) -> None:
    url = URL(case.path, encoded=True)

    body = None if case.body is None else io.BytesIO(case.body)
    response = await client.request(case.method, url, data=body, headers=case.headers, skip_auto_headers=SKIPPED)

    text = await response.text()
    problem = await response.json(content_type="application/problem+json")
    assert response.status == case.status, text
    assert problem.keys() >= {"type", "title", "status", "detail", "instance"}
    assert problem["status"] == case.status
    assert case.pointer is None or case.pointer in [each["pointer"] for each in problem["errors"]], text
    assert case.says in problem["detail"], text
    assert "Traceback" not in text
    assert len(text) < 16_384
    assert (await client.post("/jobs", json={"type": "after"})).status == 201


def test_the_list_of_bad_input_is_long_and_has_nothing_twice() -> None:
    assert len(CASES) >= 200
    assert len({(case.method, case.path, case.body, tuple(case.headers.items())) for case in CASES}) == len(CASES)


async def test_everything_that_is_wrong_with_a_job_is_told_at_once(client: Client) -> None:
    body = {"type": "a b", "priority": "5", "max_retries": 0, "run_at": "x", "payload": 2**64, "tags": ["", 5], "x": 1}

    response = await client.post("/jobs", json=body)

    pointers = [each["pointer"] for each in (await response.json())["errors"]]
    assert sorted(pointers) == sorted(
        ["/type", "/priority", "/max_retries", "/run_at", "/payload", "/tags/0", "/tags/1", "/x"]
    )


async def test_a_thousand_mistakes_make_no_answer_of_a_thousand_lines(client: Client) -> None:
    response = await client.post("/jobs", json={f"wrong{number}": 1 for number in range(1_000)})

    assert response.status == 400
    assert len((await response.json())["errors"]) == 20


async def test_long_names_make_no_long_answer(client: Client) -> None:
    body = b'{"payload": {"' + b"k" * 50_000 + b'": [' + b",".join([b"NaN"] * 20) + b"]}}"

    response = await client.post("/jobs", data=body, headers=JSON)

    assert len((await response.json())["errors"]) == 20
    assert len(await response.text()) < 10_000
