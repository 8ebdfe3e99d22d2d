"""What an exception looks like over GraphQL: the detail of its problem document, and a code.

The codes follow from the statuses of the one table in `api/errors.py`, so an exception that is added there has
its code here. Nothing of an exception that we did not raise ourselves leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from graphql import GraphQLError
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from jobqueue.api.errors import headers_of, log_failure, problem_of
from jobqueue.api.schemas import Problem

PATH = "/graphql"
MAX_MESSAGE_LENGTH = 500
"""Messages of GraphQL itself quote the query, which may be long."""

CODE = "code"
BAD_INPUT = "BAD_INPUT"
LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
INTERNAL = "INTERNAL"
CODES: Mapping[int, str] = {
    400: BAD_INPUT,
    404: "NOT_FOUND",
    409: "CONFLICT",
    413: "TOO_LARGE",
    422: "CONFLICT",
    429: "RATE_LIMITED",
    500: INTERNAL,
    503: "UNAVAILABLE",
}
"""The code of every status that the table of errors knows."""

NOT_EXECUTABLE: Mapping[type[Exception], str] = {
    MissingQueryError: "there is no operation in the query",
    CannotGetOperationTypeError: "there is no operation of this name, or several of which operationName chooses none",
    InvalidOperationTypeError: "subscriptions go over a websocket, with the protocol graphql-transport-ws",
}
"""What is said when there is nothing to execute."""


log = structlog.get_logger(__name__)


def show_errors(errors: Iterable[GraphQLError]) -> None:
    """Make these errors what clients may see of them, and log what is ours: once what many fields share."""
    logged: set[int] = set()
    for error in errors:
        if id(error.original_error) not in logged:
            logged.add(id(error.original_error))
            _log(error)
        message, extensions = _shown(error)
        error.message, error.extensions = message[:MAX_MESSAGE_LENGTH], extensions


def error_of(exception: Exception) -> GraphQLError:
    """The error that a client sees for an exception outside of any field."""
    error = GraphQLError(str(exception), original_error=exception)
    show_errors([error])
    return error


def code_of(problem: Problem) -> str:
    """The code that stands for a problem."""
    return CODES.get(problem.status, INTERNAL)


def _cause(error: GraphQLError) -> Exception | None:
    """The exception behind an error; None for what GraphQL itself has to say, such as of variables."""
    return None if isinstance(error.original_error, GraphQLError) else error.original_error


def _shown(error: GraphQLError) -> tuple[str, dict[str, Any]]:
    original = _cause(error)
    if original is None:
        return error.message, {CODE: BAD_INPUT} | (error.extensions or {})
    if type(original) in NOT_EXECUTABLE:
        return NOT_EXECUTABLE[type(original)], {CODE: BAD_INPUT}
    problem = problem_of(original, instance=PATH)
    return problem.detail, _extensions(original, problem)


def _extensions(original: Exception, problem: Problem) -> dict[str, Any]:
    members = problem.model_dump(
        mode="json", by_alias=True, include={"errors", "job_id", "state", "result"}, fallback=str
    )
    if problem.status >= 500:
        members["requestId"] = structlog.contextvars.get_contextvars().get("request_id")
    if (retry_after := headers_of(original).get("Retry-After")) is not None:
        members["retryAfterSeconds"] = int(retry_after)
    return {CODE: code_of(problem), **members}


def _log(error: GraphQLError) -> None:
    original = _cause(error)
    if original is None or isinstance(original, tuple(NOT_EXECUTABLE)):
        return
    log_failure(log, original, path=PATH, field=".".join(str(step) for step in error.path or ()))
