"""POST /graphql, as "GraphQL over HTTP" has it: queries and mutations, one in each request.

A client that accepts `application/graphql-response+json` gets it, with 400 for what could not be executed; others
get JSON, with 200 for whatever came as far as the schema.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from aiohttp import hdrs, web
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError, to_json
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from jobqueue.api.answers import JSON
from jobqueue.api.bodies import read_json_body
from jobqueue.api.graphql.context import Context
from jobqueue.api.graphql.errors import NOT_EXECUTABLE, error_of
from jobqueue.api.graphql.limits import MAX_QUERY_LENGTH
from jobqueue.api.graphql.schema import SCHEMA
from jobqueue.api.handlers import Api
from jobqueue.api.schemas import Body, NoQuery
from jobqueue.errors import InvalidJob
from jobqueue.job import Absent, Document

GRAPHQL_JSON = "application/graphql-response+json"
OVER_HTTP = (OperationType.QUERY, OperationType.MUTATION)


def _check_length(query: str) -> str:
    if len(query) > MAX_QUERY_LENGTH:
        raise PydanticCustomError("query", f"must have at most {MAX_QUERY_LENGTH} characters; send data as variables")
    return query


class GraphQLBody(Body):
    """One operation, or several of which `operationName` is meant, and its variables."""

    wrapping: ClassVar[int] = 4
    """The body, its variables, in them a list of jobs, and a job in that."""

    query: Annotated[str, Field(min_length=1), AfterValidator(_check_length)]
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None


class GraphQLProblem(Document):
    """What went wrong, and in `extensions` its code."""

    message: str
    locations: Absent[list[dict[str, int]]] = None
    path: Absent[list[Any]] = None
    extensions: Absent[dict[str, Any]] = None


class GraphQLAnswer(Document):
    """What was asked for, and what went wrong on the way."""

    data: Absent[dict[str, Any]] = None
    errors: Absent[list[GraphQLProblem]] = None


async def execute_graphql(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    """Execute one query or mutation."""
    given = await read_json_body(request, limit=api.limits.max_payload_bytes)
    try:
        body = GraphQLBody.read_json(given)
    except InvalidJob as error:
        return _answer(request, {"errors": [error_of(error).formatted]}, status=400)
    answer = await _execute(api, body)
    executed = "data" in answer
    return _answer(request, answer, status=200 if executed or not _accepts_graphql_json(request) else 400)


async def _execute(api: Api, body: GraphQLBody) -> dict[str, Any]:
    try:
        result = await SCHEMA.execute(
            body.query,
            variable_values=body.variables,
            operation_name=body.operation_name,
            context_value=Context(api),
            allowed_operation_types=OVER_HTTP,
        )
    except tuple(NOT_EXECUTABLE) as error:
        return {"errors": [error_of(error).formatted]}
    return _shown(result)


def _shown(result: ExecutionResult) -> dict[str, Any]:
    errors = result.errors or []
    shown: dict[str, Any] = {"errors": [error.formatted for error in errors]} if errors else {}
    # What failed before anything was executed has no data, not even null.
    if result.data is not None or any(error.path for error in errors):
        shown["data"] = result.data
    return shown


def _answer(request: web.Request, answer: dict[str, Any], *, status: int) -> web.Response:
    content_type = GRAPHQL_JSON if _accepts_graphql_json(request) else JSON
    return web.Response(body=encode(answer), status=status, content_type=content_type)


def encode(answer: Any) -> bytes:
    """JSON of an answer. What people store by hand and JSON does not know is shown as text, as in REST."""
    return to_json(answer, fallback=str, inf_nan_mode="null")


def _accepts_graphql_json(request: web.Request) -> bool:
    return GRAPHQL_JSON in request.headers.get(hdrs.ACCEPT, "")
