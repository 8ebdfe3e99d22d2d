"""The OpenAPI 3.1 document: made of the list of routes and of the models that validate, so it cannot drift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from jobqueue.api.middleware import SAFE_METHODS
from jobqueue.api.schemas import Problem

REF_TEMPLATE = "#/components/schemas/{model}"

PROBLEMS: Mapping[int, str] = {
    400: "The input is not valid: `errors` says where and why",
    403: "A browser sent it for a page of another site",
    404: "There is no such job",
    408: "The body did not arrive in time",
    409: "The job is in a state, or exists already, that forbids this",
    413: "Larger than is taken",
    415: "Not declared as something that is taken here",
    422: "The idempotency key stands for another request",
    429: "More is enqueued than may be in a second; `Retry-After` says when to try again",
    503: "Stopping, too busy, or without its database; `Retry-After` says when to try again",
}
ANY_OTHER = "Any other refusal: `status` and `title` say which. From 500 on the log has more, under `requestId`"

RETRY_AFTER = ("Retry-After", "seconds", "integer")
PROBLEM_HEADERS: Mapping[int, Sequence[tuple[str, str, str]]] = {
    429: (
        RETRY_AFTER,
        ("RateLimit-Policy", "how many jobs may be accepted in how many seconds", "string"),
        ("RateLimit", "how many are left, and when there will be more", "string"),
    ),
    503: (RETRY_AFTER,),
}
"""By status: name, description and type of the headers that tell when to try again."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One way in which a route answers well. `shape` is the type of its JSON; None is no body. `texts` are the media
    types in which it answers with text, to who asks for it."""

    description: str
    shape: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    texts: Sequence[str] = ()


class Described(Protocol):
    """What the document needs to know about a route."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tag(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def query(self) -> type[BaseModel]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> Mapping[str, Any]: ...
    @property
    def body_required(self) -> bool: ...
    @property
    def replies(self) -> Mapping[int, Reply]: ...
    @property
    def problems(self) -> Sequence[int]: ...


def build_openapi(routes: Sequence[Described], *, version: str) -> Mapping[str, Any]:
    """The document that describes these routes."""
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobqueue",
            "version": version,
            "description": (
                "A job service on MongoDB. Fields that are not set are absent, never null. Every answer has an"
                " `X-Request-Id`, that of the request where it has one; the log has it too."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": schemas.definitions},
    }


def _operation(route: Described, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "responses": _responses(route, schemas),
    }
    parameters = [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        content = {media_type: {"schema": schemas.of(shape, "validation")} for media_type, shape in route.body.items()}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    return operation


def _responses(route: Described, schemas: _Schemas) -> dict[str, Any]:
    responses = {str(status): _reply(reply, schemas) for status, reply in route.replies.items()}
    from_any_site = route.method in SAFE_METHODS
    for status in route.problems if from_any_site else sorted([*route.problems, 403]):
        problem = _problem(schemas, PROBLEMS[status], PROBLEM_HEADERS.get(status, ()))
        # A status may have two shapes, told apart by their media types.
        answer = responses.setdefault(str(status), problem)
        answer["content"] = answer.get("content", {}) | problem["content"]
    return responses | {"default": _problem(schemas, ANY_OTHER)}


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.description}
    if reply.headers:
        described["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in reply.headers.items()
        }
    if reply.shape is not None:
        described["content"] = {"application/json": {"schema": schemas.of(reply.shape, "serialization")}}
        described["content"] |= {text: {"schema": {"type": "string"}} for text in reply.texts}
    return described


def _problem(schemas: _Schemas, description: str, headers: Sequence[tuple[str, str, str]] = ()) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": schemas.of(Problem, "serialization")}},
    }
    if headers:
        described["headers"] = {name: {"description": text, "schema": {"type": kind}} for name, text, kind in headers}
    return described


def _path_parameters(route: Described) -> Iterable[dict[str, Any]]:
    if "{id}" in route.path:
        yield {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "of the job"}


def _query_parameters(route: Described) -> Iterable[dict[str, Any]]:
    schema = route.query.model_json_schema(ref_template=REF_TEMPLATE, schema_generator=_NeverNull)
    for name, described in schema.get("properties", {}).items():
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        description = described.pop("description", None)
        yield parameter | ({"description": description} if description else {}) | {"schema": described}


def _header_parameters(route: Described) -> Iterable[dict[str, Any]]:
    for name, description in route.headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": description,
        }


class _Schemas:
    """The JSON schemas of everything that goes in or out, and the definitions they refer to."""

    def __init__(self, routes: Sequence[Described]) -> None:
        wanted: list[tuple[Any, JsonSchemaMode]] = [(Problem, "serialization")]
        for route in routes:
            wanted += [(shape, "validation") for shape in route.body.values()]
            wanted += [(reply.shape, "serialization") for reply in route.replies.values() if reply.shape is not None]
        schemas, definitions = TypeAdapter.json_schemas(
            [(repr(shape), mode, TypeAdapter(shape)) for shape, mode in wanted],
            ref_template=REF_TEMPLATE,
            schema_generator=_NeverNull,
        )
        self._schemas = schemas
        self.definitions: Mapping[str, Any] = definitions.get("$defs", {})

    def of(self, shape: Any, mode: JsonSchemaMode) -> JsonSchemaValue:
        """The schema of one type."""
        return self._schemas[(repr(shape), mode)]


class _NeverNull(GenerateJsonSchema):
    """Schemas as this API means them: what is not set is absent, so nothing is nullable and no default is null;
    what is always there in an answer is required in it."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if self.mode == "serialization" or described.get("default", ...) is None:
            described.pop("default", None)
        return described

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization":
            return "serialization_exclude_if" not in field
        return super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
