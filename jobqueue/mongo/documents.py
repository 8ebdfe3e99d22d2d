"""Document <-> Job: strict when writing, lenient when reading.

Writing: the fields of `Job` under their names, `id` as `_id`; payload and result go in as they are. Reading
takes what people type into mongosh (missing fields, doubles where ints belong, BSON values that JSON lacks) and
raises `Unreadable` for what makes no sense. This is the one place where a document is decoded: what is read
here is JSON, whatever stood in the database.

One value does not come back as it went in: `{"$ref": <string>, "$id": ..., "$db": null}` loses its `$db`,
since the driver itself turns it into a DBRef.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeGuard

import bson
from bson import Binary, DatetimeMS, DBRef, Decimal128, Int64, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.job import (
    EPOCH,
    LAST_INSTANT,
    AttemptError,
    Candidate,
    Job,
    JobId,
    JsonValue,
    LeaseId,
    Status,
    cut,
    to_rfc3339,
)

StoredDocument = Mapping[str, Any]

MAX_DOCUMENT_BYTES = 15 << 20
"""MongoDB's limit is 16 MiB; the rest is for what an attempt adds: errors, result, progress."""

OPAQUE = frozenset({"payload", "result", "fault"})
"""Fields whose content is the client's: never copied, checked or renamed, only made JSON."""

MAY_BE_NULL = frozenset({"payload", "result"})
UNREADABLE = "Unreadable"

SIMPLE = frozenset({str, int, bool})
"""Types whose values are read as they are, in fields of ours and of the client."""

NESTED = frozenset({"lease", "errors", "progress", "backoff", "last_outcome"})
"""Fields that hold documents of ours."""

READING: dict[str, Any] = {
    "tz_aware": False,  # `plain` says that they are UTC, which takes a fraction of the driver's time
    # What people type into mongosh (a year 10000, broken UTF-8) must not make a whole page unreadable.
    "datetime_conversion": DatetimeConversion.DATETIME_AUTO,
    "unicode_decode_error_handler": "replace",
}
"""How a driver is to decode what it gets."""

CODEC: CodecOptions[Any] = CodecOptions(**READING)

CANDIDATE_FIELDS = {"_id": 1, "queue": 1, "priority": 1, "runAt": 1}
"""What `read_candidate` reads. All of it is in the claim index, so that no document is read."""

SELDOM_SET = [
    (name, to_camel(name), name in NESTED)
    for name, field in Job.model_fields.items()
    if field.exclude_if is not None and name != "insert_id"
]
"""Fields that are absent while they are not set, as they mostly are of new jobs, and their names in MongoDB."""

_seldom_set_of = itemgetter(*(name for name, _, _ in SELDOM_SET))
NONE_SET = (None,) * len(SELDOM_SET)


class Unreadable(Exception):
    """The document cannot be understood as a job; the message says why, in one line."""


def to_document(job: Job) -> dict[str, Any]:
    """The document of a job, ready to insert."""
    fields = vars(job)
    document: dict[str, Any] = {
        "_id": fields["id"],
        "type": fields["type"],
        "queue": fields["queue"],
        "payload": fields["payload"],
        "priority": fields["priority"],
        "status": fields["status"]._value_,  # `value` is a property that Python itself takes twenty times as long for
        "retryCount": fields["retry_count"],
        "maxRetries": fields["max_retries"],
        "runAt": _zoneless(fields["run_at"]),
        "createdAt": _zoneless(fields["created_at"]),
        "updatedAt": _zoneless(fields["updated_at"]),
        "seq": Int64(fields["seq"]),
    }
    if (insert_id := fields["insert_id"]) is not None:
        document["insertId"] = insert_id
    if _seldom_set_of(fields) != NONE_SET:  # at one glance, since a look at each costs as much as all of the above
        for name, stored, nested in SELDOM_SET:
            if (value := fields[name]) is not None:
                document[stored] = _dumped(value) if nested else _zoneless(value) if type(value) is datetime else value
    return document


def _dumped(value: Any) -> Any:
    return [_dumped(item) for item in value] if isinstance(value, list) else value.model_dump(by_alias=True)


def encode(document: StoredDocument) -> bytes:
    """A document as BSON. Raises `InvalidJob` when BSON cannot carry it, or MongoDB cannot store as much."""
    try:
        encoded = bson.encode(document)
    except (BSONError, OverflowError, RecursionError, UnicodeError, TypeError) as error:
        raise InvalidJob([FieldProblem("", f"cannot be stored: {type(error).__name__}")]) from None
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise InvalidJob([FieldProblem("", f"{len(encoded)} bytes are more than MongoDB can store")])
    return encoded


def read_document(document: StoredDocument) -> Job:
    """The job that a document says. Raises `Unreadable`."""
    if not isinstance(document.get("_id"), str):
        raise Unreadable(f"_id is no string but {type(document.get('_id')).__name__}")
    try:
        return Job.model_validate(_fields(document), by_name=False)
    except ValidationError as error:
        raise Unreadable(_in_one_line(error)) from None


def read_or_salvage(document: StoredDocument) -> Job:
    """The job that a document says, or one that shows what can be read and, in `errors`, what cannot."""
    try:
        return read_document(document)
    except Unreadable as error:
        return _salvage(document, str(error))


def _salvage(document: StoredDocument, reason: str) -> Job:
    fields = _fields(document)
    try:
        job = Job.model_validate(fields, by_name=False)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors(include_url=False)}
        readable = {name: value for name, value in fields.items() if name not in wrong}
        # A state that nobody knows is shown as failed: what stands there waits for a person.
        job = Job.model_validate({"status": Status.FAILED} | readable, by_name=False)
    return job.model_copy(update={"errors": [unreadable_error(reason, at=job.updated_at)]})


def _fields(document: StoredDocument) -> dict[str, Any]:
    fields = {
        # This runs for every field of every job that is read, and nearly all are of the first kind.
        name: value if type(value) in SIMPLE else json_safe(value) if name in OPAQUE else plain(value)
        for name, value in document.items()
        if value is not None or name in MAY_BE_NULL
    }
    fields["id"] = str(document.get("_id"))
    return fields


def unreadable_error(reason: str, *, at: datetime) -> AttemptError:
    """What stands in `errors` of a document that cannot be read."""
    return AttemptError(attempt=0, at=at, type=UNREADABLE, message=cut(reason))


def read_candidate(document: StoredDocument) -> Candidate:
    """The candidate that an index entry says. Raises `Unreadable`."""
    job_id, queue = document.get("_id"), document.get("queue")
    run_at, priority = plain(document.get("runAt")), document.get("priority")
    if not isinstance(job_id, str) or not isinstance(queue, str):
        raise Unreadable("_id or queue is no string")
    if not isinstance(run_at, datetime) or not is_whole(priority):
        raise Unreadable("runAt is no date, or priority no number")
    return Candidate(-int(priority), run_at, JobId(job_id), queue)


def readable_candidates(documents: Iterable[StoredDocument]) -> list[Candidate]:
    """The candidates among these; what cannot be read is found again by the adoption."""
    candidates = []
    for document in documents:
        with suppress(Unreadable):
            candidates.append(read_candidate(document))
    return candidates


def lease_id_in(document: StoredDocument) -> LeaseId | None:
    """The id of the lease under which a job stands; None where it has none, or one that no claim gave it."""
    lease = document.get("lease")
    lease_id = lease.get("id") if isinstance(lease, Mapping) else None
    return LeaseId(lease_id) if isinstance(lease_id, str) else None


def is_whole(value: Any) -> TypeGuard[int | float]:
    """Whether this is a number that stands for an integer (mongosh stores doubles)."""
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value % 1 == 0


def whole(value: Any, default: int) -> int:
    """The integer that a field holds, `default` when it holds none."""
    return int(value) if is_whole(value) else default


def error_document(error: AttemptError) -> dict[str, Any]:
    """An entry of `errors`, within its bounds."""
    document = error.model_dump(by_alias=True)
    document["message"] = cut(error.message)
    document["type"] = cut(error.type)
    return document


def plain(value: Any) -> Any:
    """A field of ours as Python has it: aware times within Python's years, numbers without BSON's types."""
    kind = type(value)
    if kind in SIMPLE or kind is Int64:
        return value
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else _in_utc(value)
    if isinstance(value, DatetimeMS):
        return LAST_INSTANT if int(value) > 0 else EPOCH
    if isinstance(value, Decimal128):
        return value.to_decimal()
    if kind is dict or isinstance(value, Mapping):
        return {name: item if type(item) in SIMPLE else plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


@lru_cache(maxsize=1024)  # a new job has the same time three times, and shares it with those of its millisecond
def _zoneless(moment: datetime) -> datetime:
    """The same in UTC, without saying so: the driver takes it for that, and three times as long for one that does."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment


@lru_cache(maxsize=1024)  # a job has the same time several times, and shares it with those claimed with it
def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def json_safe(value: Any) -> JsonValue:
    """The same value with nothing in it that JSON lacks; DBRefs become the objects they were stored as."""
    kind = type(value)
    if kind in SIMPLE or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if isinstance(value, DBRef):
        value = value.as_doc()
    if kind is dict or isinstance(value, Mapping):
        return {name: item if type(item) in SIMPLE else json_safe(item) for name, item in value.items()}
    if isinstance(value, list):
        return [json_safe(item) for item in value]
    return _CONVERSIONS.get(kind, str)(value)


def _binary(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


_CONVERSIONS: Mapping[type, Callable[[Any], JsonValue]] = {
    Int64: int,
    ObjectId: str,
    Decimal128: str,
    Binary: _binary,
    bytes: _binary,
    datetime: lambda value: to_rfc3339(plain(value)),
    DatetimeMS: lambda value: to_rfc3339(plain(value)),
}
"""BSON types that JSON lacks. What is not listed (regular expressions, code, ...) is shown as its text."""


def _in_one_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in problems)
