"""The Postman collection as a document: well-formed, and equal to the routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from collection import PATH, read, requests_of

from jobqueue.api.routes import PAGES, ROUTES

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
VARIABLE = re.compile(r"\{\{(\w+)\}\}")
PLACEHOLDER = re.compile(r"\{\w+\}")
SEED = {
    "Create Job": ("POST", "{{baseUrl}}/jobs"),
    "Get Job": ("GET", "{{baseUrl}}/jobs?id={{jobId}}"),
    "List Jobs": ("GET", "{{baseUrl}}/jobs"),
}
SEED_BODY = (
    '{\n  "type": "email",\n  "payload": {\n    "to": "user@example.com",\n    "subject": "Welcome",\n'
    '    "body": "Hello!"\n  }\n}'
)
TOO_LONG_TO_SHOW = {"Show OpenAPI", "Show Page", "Show GraphiQL"}
"""Their answers are documents themselves; an example would be a copy of them that grows old."""

COLLECTION = read()
REQUESTS = list(requests_of(COLLECTION))


def routes() -> Iterator[tuple[str, str, str]]:
    """Name, method and path of everything that is served, but what the documentation page loads."""
    for route in ROUTES:
        yield route.handler.__name__.replace("_", " "), route.method, _pattern(route.path)
    for path, page in PAGES.items():
        if not PLACEHOLDER.search(path):
            yield page.__name__.replace("_", " "), "GET", path


def _pattern(path: str) -> str:
    return PLACEHOLDER.sub("*", path)


def served(item: Mapping[str, Any]) -> tuple[str, str]:
    """Method and path of a request, in the form of `routes`."""
    url = item["request"]["url"]
    path = "/" + "/".join(VARIABLE.sub("*", part) for part in url["path"])
    return item["request"]["method"], path


def named(name: str) -> dict[str, Any]:
    return next(item for item in REQUESTS if item["name"] == name)


def test_every_route_has_a_request_and_every_request_a_route() -> None:
    assert {served(item) for item in REQUESTS} == {(method, path) for _, method, path in routes()}


def test_there_is_a_request_of_the_name_of_each_handler() -> None:
    names = {item["name"].casefold() for item in REQUESTS}

    assert {name for name, _, _ in routes()} <= names


def test_names_are_unique() -> None:
    names = [item["name"] for item in REQUESTS]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", SEED)
def test_the_requests_of_the_original_collection_are_there_under_their_names(name: str) -> None:
    request = named(name)["request"]

    assert (request["method"], request["url"]["raw"]) == SEED[name]


def test_the_original_body_is_posted_word_for_word() -> None:
    request = named("Create Job")["request"]

    assert request["body"]["raw"] == SEED_BODY
    assert request["header"] == [{"key": "Content-Type", "value": "application/json"}]


def test_the_file_is_a_collection_of_version_2_1() -> None:
    assert COLLECTION["info"]["schema"] == SCHEMA
    assert COLLECTION["info"]["name"] == "Job Queue Service"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", COLLECTION["info"]["_postman_id"])
    for item in REQUESTS:
        assert item.keys() == {"name", "event", "request", "response"}
        assert item["request"].keys() >= {"method", "header", "url", "description"}
        assert _rebuilt(item["request"]["url"]) == item["request"]["url"]["raw"]
        if "body" in item["request"]:
            json.loads(item["request"]["body"]["raw"])


def _rebuilt(url: Mapping[str, Any]) -> str:
    """The address out of its parts: Postman shows the one and sends the other."""
    (host,) = url["host"]
    query = "&".join(f"{each['key']}={each['value']}" for each in url.get("query", ()))
    return f"{host}/{'/'.join(url['path'])}" + (f"?{query}" if query else "")


def test_every_variable_that_is_used_is_declared() -> None:
    declared = {variable["key"] for variable in COLLECTION["variable"]}

    assert set(VARIABLE.findall(PATH.read_text(encoding="utf-8"))) <= declared == {"baseUrl", "jobId"}


@pytest.mark.parametrize("item", REQUESTS, ids=lambda item: item["name"])
def test_every_request_checks_its_status_and_what_it_gets(item: Mapping[str, Any]) -> None:
    (event,) = item["event"]
    script = "\n".join(event["script"]["exec"])

    assert event["listen"] == "test"
    assert re.search(r"pm\.response\.to\.have\.status\(\d{3}\)", script)
    assert script.count("pm.test(") >= 2


@pytest.mark.parametrize("item", REQUESTS, ids=lambda item: item["name"])
def test_every_request_has_an_example_that_agrees_with_its_checks(item: Mapping[str, Any]) -> None:
    if item["name"] in TOO_LONG_TO_SHOW:
        assert item["response"] == []
        return
    (example,) = item["response"]
    script = "\n".join(item["event"][0]["script"]["exec"])

    assert f"have.status({example['code']})" in script
    assert example["originalRequest"] == item["request"]
    if example["code"] == 204:
        assert example["body"] == ""
    else:
        json.loads(example["body"])
