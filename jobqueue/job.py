"""The job: its document, its states, and every legal move between them.

`Job` is what a document of the collection `jobs` says; `JobView` is the part of it that clients see.
The names are the same everywhere: `run_at` here is `runAt` in MongoDB and in JSON. Fields that are not
set are absent there, never null (a null would fill the unique indexes). Nothing in this module does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache, partial
from operator import is_
from typing import Annotated, Any, NamedTuple, NewType, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

JobId = NewType("JobId", str)
LeaseId = NewType("LeaseId", str)
WorkerId = NewType("WorkerId", str)

JsonValue = Any
"""A JSON value that BSON can carry: `values.py` says exactly which."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""What an id, a type and a queue may look like; matched in full."""

DEFAULT_NAME = "default"
NEAR = "near-"
"""How the `insert_id` of a job begins that was stored by a process with workers: it is offered to these first, and
other processes are told of it only when they have no slot for it."""

PRIORITY_RANGE = range(-1000, 1001)
MAX_RETRIES_RANGE = range(1, 101)
DEFAULT_MAX_RETRIES = 3
MAX_TIMEOUT_SECONDS = 7 * 86_400.0
MAX_TAGS = 20
MAX_TAG_LENGTH = 64
MAX_KEY_LENGTH = 255
MAX_ERRORS = 20
MAX_ERROR_MESSAGE_BYTES = 2048
MAX_RESULT_BYTES = 64 * 1024
MAX_LOG_LINES = 200
MAX_LOG_BYTES = 64 * 1024
"""What is kept of one job's log, as JSON: the newest lines within both bounds."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(9999, 12, 31, tzinfo=UTC)


class Status(StrEnum):
    """Where a job stands. A worker that dies leaves `processing` behind; the rescue takes it from there."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = frozenset({Status.SCHEDULED, Status.PENDING})
FINISHED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Move:
    """One legal change of state: from any of `sources` to one of `targets`."""

    sources: frozenset[Status]
    targets: frozenset[Status]


def _move(sources: set[Status], targets: set[Status]) -> Move:
    return Move(frozenset(sources), frozenset(targets))


MOVES: Mapping[str, Move] = {
    "promote": _move({Status.SCHEDULED}, {Status.PENDING}),
    "claim": _move({Status.PENDING}, {Status.PROCESSING}),
    "complete": _move({Status.PROCESSING}, {Status.COMPLETED}),
    "retry": _move({Status.PROCESSING}, {Status.SCHEDULED, Status.CANCELLED}),
    "fail": _move({Status.PROCESSING}, {Status.FAILED}),
    "snooze": _move({Status.PROCESSING}, {Status.SCHEDULED, Status.CANCELLED}),
    "release": _move({Status.PROCESSING}, {Status.PENDING, Status.CANCELLED}),
    "abandon": _move({Status.PROCESSING}, {Status.CANCELLED}),
    "rescue": _move({Status.PROCESSING}, {Status.PENDING, Status.FAILED, Status.CANCELLED}),
    "cancel": _move({Status.SCHEDULED, Status.PENDING}, {Status.CANCELLED}),
    "redrive": _move({Status.FAILED, Status.CANCELLED}, {Status.PENDING}),
}
"""Every legal move, once. Each is one verb of the repository; the contract tests hold the two together.
Moves out of `processing` reach `cancelled` when the job was asked to stop while it ran."""


def to_milliseconds(moment: datetime) -> datetime:
    """Truncate to what BSON keeps, so that a first answer and a later one show the same time."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@lru_cache(maxsize=1024)  # a new job has the same time three times, and shares it with those of its millisecond
def to_rfc3339(moment: datetime) -> str:
    """Write a time as every answer shows it: UTC, always with milliseconds, `2026-02-02T05:30:00.000Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def cut(text: str, *, max_bytes: int = MAX_ERROR_MESSAGE_BYTES) -> str:
    """The beginning of a text, at most so many bytes of UTF-8. What UTF-8 cannot carry is shown escaped."""
    encoded = text.encode(errors="backslashreplace")
    return encoded[:max_bytes].decode(errors="ignore")


T = TypeVar("T")
Instant = Annotated[
    datetime,
    PlainSerializer(to_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Absent = Annotated[T | None, Field(default=None, exclude_if=partial(is_, None))]
"""A field that is left out, in MongoDB and in JSON, while it is not set."""


class Document(BaseModel):
    """Base of everything that is stored: camelCase outside, snake_case inside, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", allow_inf_nan=True
    )


class LeaseView(Document):
    worker_id: WorkerId
    expires_at: Instant


class Lease(LeaseView):
    """The right to run one attempt. Every write of that attempt is conditional on `id`."""

    id: LeaseId


class AttemptError(Document):
    """Why one attempt did not succeed. `attempt` is the retryCount it ran under."""

    attempt: int
    at: Instant
    type: str
    message: str
    worker_id: Absent[str] = None


class Progress(Document):
    percent: Absent[float] = None
    message: Absent[str] = None


class Backoff(Document):
    """How long this job waits after a failed attempt, where it differs from its type and the settings: the first
    delay, doubled with each further attempt, and the longest; in seconds."""

    base_seconds: Absent[float] = None
    max_seconds: Absent[float] = None


class Fault(BaseModel):
    """How attempts of a job fail on purpose, where that is switched on: the first `failures` of them, and each
    further one with `probability`. Those that fail raise an error; with `crash` they end without an outcome, as if
    their worker had died, before their task has run, with `lose_lease` after. With one of these and no number every
    attempt fails. Each attempt begins `delay_seconds` late."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        strict=True,
        frozen=True,
    )

    failures: int = Field(0, ge=0, le=100, description="so many attempts fail, the first ones")
    probability: float = Field(0.0, ge=0, le=1, description="how likely every further one fails")
    delay_seconds: float = Field(0.0, ge=0, le=86_400, description="every attempt begins so much later")
    crash: bool = Field(False, description="those that fail end without an outcome, as if their worker had died")
    lose_lease: bool = Field(False, description="the same, after their task has run")

    @model_validator(mode="after")
    def _check_sense(self) -> Fault:
        if not self.model_fields_set:
            raise PydanticCustomError("fault", "must say how to fail")
        if self.crash and self.lose_lease:
            raise PydanticCustomError("fault", "cannot crash and lose its lease in one attempt")
        return self

    def fails(self, attempt: int, *, chance: float) -> bool:
        """Whether this attempt is to fail; `chance` is a random number from 0 to 1."""
        if not self.model_fields_set & {"failures", "probability"}:
            return self.crash or self.lose_lease
        return attempt <= self.failures or chance < self.probability


class LastOutcome(Document):
    """Which lease wrote its outcome last, and which; a repeated write after a lost answer is recognised by it."""

    lease_id: LeaseId
    kind: str


class LogLine(Document):
    """One line that an attempt logged. `level` is `debug`, `info`, `warning`, `error` or `critical`."""

    at: Instant
    attempt: int
    level: str
    message: str
    fields: dict[str, JsonValue] = Field(default_factory=dict)


class JobView(Document):
    """A job as clients see it."""

    id: JobId
    type: str = DEFAULT_NAME
    queue: str = DEFAULT_NAME
    payload: JsonValue = None
    priority: int = 0
    status: Status = Status.PENDING
    retry_count: int = 0
    max_retries: int = DEFAULT_MAX_RETRIES
    run_at: Instant = EPOCH
    timeout_seconds: Absent[float] = None
    created_at: Instant = EPOCH
    updated_at: Instant = EPOCH
    started_at: Absent[Instant] = None
    finished_at: Absent[Instant] = None
    lease: Absent[LeaseView] = None
    cancel_requested_at: Absent[Instant] = None
    errors: Absent[list[AttemptError]] = None
    result: Absent[JsonValue] = None
    progress: Absent[Progress] = None
    tags: Absent[list[str]] = None
    idempotency_key: Absent[str] = None
    unique_key: Absent[str] = None
    traceparent: Absent[str] = None
    backoff: Absent[Backoff] = None
    fault: Absent[dict[str, JsonValue]] = None
    redrives: Absent[int] = None


class Job(JobView):
    """A job as MongoDB has it: the view, and what only the engine needs."""

    lease: Absent[Lease] = None
    seq: int = 0
    insert_id: Absent[str] = None
    fingerprint: Absent[str] = None
    last_outcome: Absent[LastOutcome] = None

    @property
    def attempts_left(self) -> int:
        """How many more claims this job may have."""
        return max(0, self.max_retries - self.retry_count)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """A job of every field there is, by name, whose values are known to be right: `defaults()` with what differs.
        As pydantic makes it, in a fraction of the time. The job takes over the dictionary."""
        job = cls.__new__(cls)
        _put_fields(job, fields)
        _put_set(job, ALL_FIELDS)
        _put_extra(job, None)
        _put_private(job, None)
        return job

    @staticmethod
    def defaults() -> dict[str, Any]:
        """Every field of a job, by name, as it is where nothing is said of it."""
        return FIELD_DEFAULTS.copy()


_put_fields, _put_set, _put_extra, _put_private = (
    BaseModel.__dict__[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
"""They fill the slots of a model, also of a frozen one. `object.__setattr__` would look for each by its name."""

FIELD_DEFAULTS: dict[str, Any] = vars(Job(id=JobId("")))
ALL_FIELDS = set(Job.model_fields)


class Candidate(NamedTuple):
    """A pending job that could be claimed, in the order in which that is to happen: highest priority first,
    then the longest due, then by id. Comparing two of them compares that order."""

    rank: int
    """The priority, negated: the smallest rank runs first."""
    run_at: datetime
    id: JobId
    queue: str

    @classmethod
    def of(cls, job: Job) -> Candidate:
        """The candidate that stands for a job."""
        return cls(-job.priority, job.run_at, job.id, job.queue)


class Claim(NamedTuple):
    """One attempt at one job: the pair that every write of the attempt is conditional on."""

    job_id: JobId
    lease_id: LeaseId
