"""What an exception looks like over HTTP: one table, and the RFC 9457 problem that is made of it.

Nothing of an exception that we did not raise ourselves ever leaves, neither its text nor a traceback; the answer
carries the request id, under which the log has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import ClientConnectionResetError, hdrs, http_exceptions, web

from jobqueue.api.schemas import Problem, ProblemField
from jobqueue.errors import (
    DuplicateJob,
    IllegalMove,
    InvalidJob,
    JobNotFound,
    KeyInUse,
    KeyReused,
    OutcomeUnknown,
    QueueFull,
    RateLimited,
    ShuttingDown,
    Unavailable,
)
from jobqueue.job import Status

TYPE_PREFIX = "urn:problem-type:jobqueue:"
UNAVAILABLE_RETRY_SECONDS = 2
SHUTDOWN_RETRY_SECONDS = 5
MAX_POINTER_LENGTH = 256
MAX_DETAIL_LENGTH = 1024
"""An answer is not to be much larger than its question, however long the names in that are."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one class of exceptions, and those derived from it, is shown."""

    status: int
    name: str
    title: str
    detail: Callable[[Any], str] = str
    members: Callable[[Any], Mapping[str, Any]] = lambda error: {}
    retry_after: Callable[[Any], int] | None = None
    headers: Callable[[Any], Mapping[str, str]] = lambda error: {}


def _invalid(error: InvalidJob) -> Mapping[str, Any]:
    return {
        "errors": [
            ProblemField(pointer=_short(p.pointer, MAX_POINTER_LENGTH), detail=_short(p.detail, MAX_DETAIL_LENGTH))
            for p in error.problems
        ]
    }


def _duplicate(error: DuplicateJob) -> Mapping[str, Any]:
    if error.existing is None:
        return {"job_id": error.value} if error.field == "id" else {}
    return {"job_id": error.existing.id, "state": error.existing.status, "result": error.existing.result}


def _illegal_detail(error: IllegalMove) -> str:
    match error.move, error.status:
        case "delete", Status.PROCESSING:
            return f"{error}; cancel it first"
        case "redrive", Status.CANCELLED:
            return f"{error}, which is no dead letter; POST /jobs/{error.job_id}/retry puts it back, in GraphQL Retry"
        case "redrive", Status.COMPLETED:
            return f"{error}; to run it once more, enqueue it as a new job"
    return str(error)


def _illegal(error: IllegalMove) -> Mapping[str, Any]:
    return {"job_id": error.job_id, "state": error.status}


def _rate_headers(error: RateLimited) -> Mapping[str, str]:
    # As in draft-ietf-httpapi-ratelimit-headers: the policy is a quota for a window of one second.
    return {
        "RateLimit-Policy": f'"accepted";q={error.limit};w=1',
        "RateLimit": f'"accepted";r=0;t={max(1, error.retry_after_seconds)}',
    }


BROKEN_BODY = Row(
    400, "broken-body", "The body cannot be read", detail=lambda _: "its transfer or content encoding is broken"
)

TABLE: Mapping[type[Exception], Row] = {
    InvalidJob: Row(400, "invalid-input", "The input is not valid", members=_invalid),
    JobNotFound: Row(404, "job-not-found", "There is no such job", members=lambda error: {"job_id": error.job_id}),
    DuplicateJob: Row(409, "duplicate-job", "The job exists already", members=_duplicate),
    KeyReused: Row(
        422,
        "idempotency-key-reused",
        "The idempotency key stands for another request",
        members=lambda error: {"job_id": error.job_id},
    ),
    KeyInUse: Row(
        409, "idempotency-key-in-use", "The first request with this key is under way", retry_after=lambda _: 1
    ),
    IllegalMove: Row(
        409, "illegal-move", "The job is not in a state for this", detail=_illegal_detail, members=_illegal
    ),
    QueueFull: Row(
        503, "queue-full", "Too much is waiting", retry_after=lambda error: max(1, error.retry_after_seconds)
    ),
    RateLimited: Row(
        429,
        "rate-limited",
        "Too much at once",
        retry_after=lambda error: max(1, error.retry_after_seconds),
        headers=_rate_headers,
    ),
    ShuttingDown: Row(503, "shutting-down", "The service is stopping", retry_after=lambda _: SHUTDOWN_RETRY_SECONDS),
    OutcomeUnknown: Row(
        503,
        "outcome-unknown",
        "The database did not say whether it was done",
        detail=lambda error: f"it may have been done or not; asking again with the id {error.job_id!r} is safe",
        members=lambda error: {"job_id": error.job_id},
        retry_after=lambda _: UNAVAILABLE_RETRY_SECONDS,
    ),
    Unavailable: Row(
        503,
        "unavailable",
        "The database does not answer",
        detail=lambda _: "MongoDB did not answer in time; nothing is known to have been changed; try again",
        retry_after=lambda _: UNAVAILABLE_RETRY_SECONDS,
    ),
    http_exceptions.HttpProcessingError: BROKEN_BODY,
    web.RequestPayloadError: BROKEN_BODY,
    # Nobody gets this one. It is here so that a client that breaks off is no failure of ours, and none in the log.
    ClientConnectionResetError: Row(400, "client-gone", "The client is gone", detail=lambda _: "it broke off"),
    Exception: Row(
        500, "internal-error", "Something went wrong here", detail=lambda _: "the log has it under the request id"
    ),
}
"""Every exception that may reach a client, once; of the classes of an exception the nearest counts."""


def problem_of(error: Exception, *, instance: str) -> Problem:
    """The problem that tells a client about this exception. `instance` is where it happened."""
    if isinstance(error, web.HTTPException):
        return _http_problem(error, instance)
    row = row_of(error)
    return Problem(
        type=TYPE_PREFIX + row.name,
        title=row.title,
        status=row.status,
        detail=_short(row.detail(error), MAX_DETAIL_LENGTH),
        instance=_short(instance, MAX_POINTER_LENGTH),
        **row.members(error),
    )


def headers_of(error: Exception) -> dict[str, str]:
    """The headers that belong to the answer to this exception."""
    if isinstance(error, web.HTTPException):
        return {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
    row = row_of(error)
    retry_after = {hdrs.RETRY_AFTER: str(row.retry_after(error))} if row.retry_after is not None else {}
    return retry_after | dict(row.headers(error))


def row_of(error: Exception) -> Row:
    """The row of the table that an exception falls under."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def log_failure(log: Any, error: Exception, **about: object) -> None:
    """Log with `log` what is not the client's fault, `about` what and where."""
    status = row_of(error).status
    if status == 500:
        log.error("request failed", exc_info=error, **about)
    elif isinstance(error, QueueFull):
        log.debug("request refused", reason=str(error), **about)  # there may be thousands; who refuses says so once
    elif status > 500:
        log.warning("request refused", reason=str(error), **about)


def _http_problem(error: web.HTTPException, instance: str) -> Problem:
    status = HTTPStatus(error.status)
    return Problem(
        type=TYPE_PREFIX + status.phrase.lower().replace(" ", "-"),
        title=status.phrase,
        status=status,
        detail=_short(_http_detail(error), MAX_DETAIL_LENGTH),
        instance=_short(instance, MAX_POINTER_LENGTH),
    )


def _http_detail(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPNotFound):
        return "nothing is at this path; GET / lists what is here"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not allowed here; allowed: {', '.join(sorted(error.allowed_methods))}"
    return error.text or error.reason


def _short(text: str, length: int) -> str:
    """The beginning of a text, without what UTF-8 cannot carry: a problem may quote what made it one."""
    cut = text if len(text) <= length else text[: length - 1] + "\u2026"
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")
