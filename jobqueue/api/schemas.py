"""What clients send and get, as models: they validate, and the OpenAPI document is made of them.

Input is strict: no unknown fields, no conversions (`"5"` is no number, `true` neither), no null where a value is
meant. Bodies may spell a field in camelCase or in snake_case, not in both at once. Everything that is wrong with
an input is reported together, by JSON pointers in the client's own spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from jobqueue.api.cursor import decode_cursor
from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.job import (
    DEFAULT_NAME,
    EPOCH,
    LAST_INSTANT,
    MAX_KEY_LENGTH,
    MAX_RETRIES_RANGE,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_TIMEOUT_SECONDS,
    NAME_PATTERN,
    PRIORITY_RANGE,
    Absent,
    Backoff,
    Document,
    Fault,
    Instant,
    JobView,
    JsonValue,
    Status,
    to_rfc3339,
)
from jobqueue.repository import WORKER_SILENCE_SECONDS, DatabaseState, JobFilter, QueueCount, WorkerRecord
from jobqueue.service import NewJob
from jobqueue.values import (
    MAX_DEPTH,
    MAX_PROBLEMS,
    NOT_PLAIN,
    check_value,
    decode_json,
    decode_plain,
    escape_pointer,
)

DAY_SECONDS = 86_400
MAX_DELAY_SECONDS = 100 * 365 * DAY_SECONDS
MAX_WAIT_SECONDS = 60
DEFAULT_PAGE = 50
MAX_PAGE = 500
MAX_REDRIVEN = 1_000
MAX_BULK_ITEMS = 10_000

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
DECODED_PLUS = re.compile(r"[-0-9]+[Tt][0-9:.]+ \d\d:\d\d")
"""A time with its zone, as a query shows it whose + was not escaped."""
WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

OWN_WORDS = {
    "extra_forbidden": "is no field that is known here",
    "model_type": "must be a JSON object",
    "string_pattern_mismatch": "must be 1 to 128 characters out of letters, digits, '.', '_', ':' and '-'",
    "string_too_short": "must not be empty",
    "string_too_long": f"must have at most {MAX_TAG_LENGTH} characters",
    "too_long": f"must have at most {MAX_TAGS} items",
}
"""Said better than by pydantic."""


# The kinds of values


def _problem(kind: str, message: str) -> PydanticCustomError:
    # A message is a literal of ours, never the client's text; braces in it would be read as a template.
    return PydanticCustomError(kind, message)


def _check_id(text: str) -> str:
    if text in (".", ".."):
        raise _problem("name", "must not be '.' or '..', which no URL can name")
    return text


def _check_key(text: str) -> str:
    if not 0 < len(text) <= MAX_KEY_LENGTH:
        raise _problem("key", f"must have 1 to {MAX_KEY_LENGTH} characters")
    return text


def _check_true(value: bool) -> bool:
    if not value:
        raise _problem("true", "must be true, or left out")
    return value


def _number_to_id(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise _problem("null", "must not be null; leave it out instead")
    return value


def _parse_timestamp(value: Any) -> datetime:
    if not isinstance(value, str) or not TIMESTAMP.fullmatch(value):
        remedy = "; in a query write its + as %2B" if DECODED_PLUS.fullmatch(str(value)) else ""
        raise _problem("timestamp", f"must be an RFC 3339 time with its zone, such as 2026-02-02T05:30:00Z{remedy}")
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise _problem("timestamp", "is no time that exists") from None
    if not EPOCH <= moment <= LAST_INSTANT:
        raise _problem("timestamp", f"must be between {to_rfc3339(EPOCH)} and {to_rfc3339(LAST_INSTANT)}")
    return moment.astimezone(UTC)


def _parse_limit(value: Any) -> int:
    if not WHOLE_NUMBER.fullmatch(value):
        raise _problem("number", f"must be a whole number from 1 to {MAX_PAGE}")
    return int(value)


def _parse_wait(value: Any) -> float:
    if not NUMBER.fullmatch(value):
        raise _problem("number", f"must be a number of seconds from 0 to {MAX_WAIT_SECONDS}, such as 2.5")
    return float(value)


def _parse_cursor(value: Any) -> int:
    try:
        return decode_cursor(value)
    except ValueError:
        raise _problem(
            "cursor",
            "is no cursor of this service; take it as it is from the Link header, or in GraphQL from endCursor",
        ) from None


T = TypeVar("T")
Optional = Annotated[T | None, Field(default=None), BeforeValidator(_refuse_null)]
"""An input that may be left out, but not be null."""

Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN.pattern}$")]
NewId = Annotated[
    Name,
    AfterValidator(_check_id),
    BeforeValidator(_number_to_id),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}, {"type": "integer"}]}),
]
Timestamp = Annotated[
    datetime, BeforeValidator(_parse_timestamp), WithJsonSchema({"type": "string", "format": "date-time"})
]
# Not Literal[True]: that takes 1 as well, which equals it.
JustTrue = Annotated[bool, AfterValidator(_check_true), WithJsonSchema({"const": True})]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG_LENGTH)]
Key = Annotated[
    str,
    AfterValidator(_check_key),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH}),
]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False)]
DelaySeconds = Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False)]
QueryStatus = Annotated[Status, Field(strict=False)]
# The bounds first: behind a validator pydantic no longer describes them as those of a number.
QueryLimit = Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_parse_limit)]
QueryWait = Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS), BeforeValidator(_parse_wait)]
QueryCursor = Annotated[int, BeforeValidator(_parse_cursor), WithJsonSchema({"type": "string"})]


# Input


class Input(BaseModel):
    """Base of everything that clients send."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        strict=True,
        frozen=True,
    )

    snake_to_camel: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.snake_to_camel = {name: to_camel(name) for name in cls.model_fields if to_camel(name) != name}

    @classmethod
    def read(cls, given: Any) -> Self:
        """Validate what a client sent. Raises `InvalidJob` with everything that is wrong with it."""
        problems = cls.rule_problems(given) if isinstance(given, dict) else []
        try:
            model: Self = cls.__pydantic_validator__.validate_python(given)
        except ValidationError as error:
            problems = _joined(problems, [_field_problem(each) for each in _details(error)])
        if problems:
            raise InvalidJob(problems[:MAX_PROBLEMS])
        return model

    @classmethod
    def rule_problems(cls, given: Mapping[str, Any]) -> list[FieldProblem]:
        """What is wrong with fields taken together. Sees them before they are checked one by one."""
        if given.keys().isdisjoint(cls.snake_to_camel):
            return []  # nothing in snake_case, as from nearly everybody
        return [
            FieldProblem(f"/{snake}", f"is there twice, also as {cls.snake_to_camel[snake]}")
            for snake in cls.snake_to_camel.keys() & given.keys()
            if cls.snake_to_camel[snake] in given
        ]

    @classmethod
    def has(cls, given: Mapping[str, Any], name: str) -> bool:
        """Whether a field was sent, in either spelling."""
        return name in given or cls.snake_to_camel.get(name) in given


class Body(Input):
    """Base of the JSON objects that clients send. `wrapping` is how many levels it puts around a value."""

    wrapping: ClassVar[int] = 1

    @classmethod
    def read(cls, given: Any) -> Self:
        """Validate a decoded body, which was not checked before in any way. Raises `InvalidJob`."""
        problems = check_value(given, max_depth=MAX_DEPTH + cls.wrapping)
        if not problems:
            return super().read(given)
        try:
            super().read(given)
        except InvalidJob as error:
            problems = _joined(problems, error.problems)
        raise InvalidJob(problems[:MAX_PROBLEMS])

    @classmethod
    def read_plain(cls, given: JsonValue) -> Self:
        """The same for a value that `check_value` finds nothing wrong with."""
        return super().read(given)

    @classmethod
    def read_json(cls, body: bytes) -> Self:
        """The same for a body as it was sent."""
        plain = decode_plain(body)
        return cls.read_plain(plain) if plain is not NOT_PLAIN else cls.read(decode_json(body))


class BackoffBody(Input):
    """How long a job waits after failed attempts."""

    base_seconds: Optional[DelaySeconds] = Field(None, description="after the first; doubled after each further one")
    max_seconds: Optional[DelaySeconds] = Field(None, description="at most")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        base, longest = self.base_seconds, self.max_seconds
        if base is None and longest is None:
            raise _problem("backoff", "must have baseSeconds or maxSeconds")
        if base is not None and longest is not None and base > longest:
            raise _problem("backoff", "has a baseSeconds that is more than its maxSeconds")
        return self


class NewJobBody(Body):
    """A job to run. At least one of type, payload and id must be given, and at most one of runAt and
    delaySeconds. Fields may be written in snake_case too (`max_retries`)."""

    type: Name = Field(DEFAULT_NAME, description="which task runs it")
    payload: JsonValue = Field(None, description="any JSON value; the task gets it as it is")
    id: Optional[NewId] = Field(None, description='a name of your own; made when left out; 101 becomes "101"')
    queue: Name = Field(DEFAULT_NAME, description="which queue it waits in")
    priority: int = Field(0, ge=PRIORITY_RANGE[0], le=PRIORITY_RANGE[-1], description="higher runs first")
    max_retries: Optional[int] = Field(
        None, ge=MAX_RETRIES_RANGE[0], le=MAX_RETRIES_RANGE[-1], description="how many attempts it may have"
    )
    run_at: Optional[Timestamp] = Field(None, description="not before this time")
    delay_seconds: Optional[DelaySeconds] = Field(None, description="not before so many seconds from now")
    timeout_seconds: Optional[PositiveSeconds] = Field(None, description="limit of one attempt")
    # As in NewJob: what is by default there must be so here.
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)] = Field(
        default=(),  # type: ignore[arg-type]
        json_schema_extra={"default": []},
        description="to find it by",
    )
    backoff: Optional[BackoffBody] = Field(None, description="where it is to differ from that of its task")
    fault: Optional[Fault] = Field(None, description="how to fail on purpose; only where JOBQUEUE_FAULTS=true is set")
    idempotency_key: Optional[Key] = Field(
        None, description="as long as the job is kept, another one with this key is refused with 409"
    )

    apart: ClassVar[frozenset[str]] = frozenset(
        ("type", "payload", "id", "queue", "priority", "maxRetries", "timeoutSeconds", "tags", "backoff", "fault")
    )
    """Fields that, spelt like this, are in no rule with others."""

    @classmethod
    def rule_problems(cls, given: Mapping[str, Any]) -> list[FieldProblem]:
        if cls.apart.issuperset(given) and ("type" in given or "payload" in given or "id" in given):
            return []
        problems = super().rule_problems(given)
        if given.keys().isdisjoint(("type", "payload", "id")):
            problems.append(FieldProblem("", "one of type, payload and id must be there"))
        if cls.has(given, "run_at") and cls.has(given, "delay_seconds"):
            pointer = "/runAt" if "runAt" in given else "/run_at"
            problems.append(FieldProblem(pointer, "runAt and delaySeconds exclude each other"))
        return problems

    def to_new_job(self) -> NewJob:
        """The same, as the service wants it."""
        new = NewJob(*vars(self).values())  # it begins with the fields of this model, in their order
        return new if self.backoff is None else new._replace(backoff=Backoff(**self.backoff.model_dump()))


BulkBody = Annotated[list[NewJobBody], Field(max_length=MAX_BULK_ITEMS)]


FILTERS = ("type", "queue", "tag", "created_after", "created_before")
"""What jobs can be picked by, besides their state."""


class RedriveBody(Body):
    """Which dead letters are meant: a filter, or `{"all": true}`."""

    all: Optional[JustTrue] = Field(None, description="every one of them, without a filter")
    type: Optional[Name] = None
    queue: Optional[Name] = None
    tag: Optional[Tag] = None
    created_after: Optional[Timestamp] = Field(None, description="created at this time or later")
    created_before: Optional[Timestamp] = Field(None, description="created before this time")
    limit: int = Field(MAX_REDRIVEN, ge=1, le=MAX_REDRIVEN, description="at most so many, the newest first")

    @classmethod
    def rule_problems(cls, given: Mapping[str, Any]) -> list[FieldProblem]:
        problems = super().rule_problems(given)
        filters = [name for name in FILTERS if cls.has(given, name)]
        if not filters and "all" not in given:
            needed = "one of type, queue, tag, createdAfter and createdBefore must be there, or all: true"
            problems.append(FieldProblem("", needed))
        if filters and "all" in given:
            problems.append(FieldProblem("/all", "goes without a filter"))
        return problems

    def to_filter(self) -> JobFilter:
        """The dead letters that are meant."""
        return JobFilter(status=Status.FAILED, **{name: getattr(self, name) for name in FILTERS})


class StatusQuery(Input):
    """Which job."""

    id: str = Field(description="of the job")


class NoQuery(Input):
    """No query parameters at all."""


class WaitQuery(Input):
    """Whether to wait for a job to finish."""

    wait: QueryWait = Field(0.0, description="answer when the job is finished, or after so many seconds")


class DeadLettersQuery(Input):
    """Which page of the dead letters."""

    type: Optional[Name] = None
    queue: Optional[Name] = None
    tag: Optional[Tag] = None
    created_after: Optional[Timestamp] = Field(None, description="created at this time or later")
    created_before: Optional[Timestamp] = Field(None, description="created before this time")
    limit: QueryLimit = Field(DEFAULT_PAGE, description="at most so many jobs; a page may end earlier")
    cursor: Optional[QueryCursor] = Field(None, description="from the Link header of the page before")

    def to_filter(self) -> JobFilter:
        """The failed jobs that match."""
        return self._filter(Status.FAILED)

    def _filter(self, status: Status | None) -> JobFilter:
        return JobFilter(
            status=status,
            type=self.type,
            queue=self.queue,
            tag=self.tag,
            created_after=self.created_after,
            created_before=self.created_before,
        )


class JobsQuery(DeadLettersQuery):
    """Which page of the jobs, or which one job."""

    status: Optional[QueryStatus] = None
    id: Optional[str] = Field(None, description="one job instead of a list, as GET /jobs/{id} shows it")
    wait: Optional[QueryWait] = Field(None, description="with id: as in GET /jobs/{id}")

    @classmethod
    def rule_problems(cls, given: Mapping[str, Any]) -> list[FieldProblem]:
        problems = super().rule_problems(given)
        if "id" in given:
            others = [name for name in cls.model_fields if name not in ("id", "wait") and cls.has(given, name)]
            problems += [FieldProblem(f"/{to_camel(name)}", "goes with a list, not with id") for name in others]
        elif "wait" in given:
            problems.append(FieldProblem("/wait", "needs an id to wait for"))
        return problems

    def to_filter(self) -> JobFilter:
        """The jobs that match."""
        return self._filter(self.status)


# Output


class StatusView(Document):
    """Where a job stands, in short."""

    id: str
    status: Status
    retry_count: int


class Accepted(Document):
    """A job that was stored, in short."""

    id: str
    status: Status


class DeadLetters(Document):
    """A page of the dead letters, and how many there are in all, whatever the page is of (counted up to 10,000)."""

    count: int
    jobs: list[JobView]


class Requeued(Document):
    """A dead letter that was put back."""

    status: Literal["requeued"] = "requeued"
    job_id: str


class RequeuedMany(Document):
    """How many dead letters were put back, and whether there are more of the kind."""

    requeued: int
    more: bool


class DeletedMany(Document):
    """How many dead letters were removed, and whether there are more of the kind."""

    deleted: int
    more: bool


class QueueView(Document):
    """One queue: depth is what waits in it, due or not."""

    name: str
    depth: int
    pending: int
    scheduled: int
    processing: int
    oldest_pending_at: Absent[Instant] = None
    oldest_age_seconds: Absent[float] = None

    @classmethod
    def of(cls, queue: QueueCount, *, now: datetime) -> QueueView:
        """A queue as it looks at `now`."""
        return cls(
            name=queue.name,
            depth=queue.pending + queue.scheduled,
            pending=queue.pending,
            scheduled=queue.scheduled,
            processing=queue.processing,
            oldest_pending_at=queue.oldest_pending_at,
            oldest_age_seconds=queue.oldest_age_seconds(now),
        )


LIVE = (
    "(of `serve` or `worker`, not of `api`),"
    f" with a sign of life in the last {WORKER_SILENCE_SECONDS:.0f} seconds, whatever the lease; one that was killed is"
    " shown until then, one that stopped in order is gone at once"
)
"""Behind "process with workers": which these are, and what live means, where clients are told of them."""


class WorkerView(WorkerRecord):
    """One live process with workers. `heartbeatAt` is its last sign of life."""


class Metrics(BaseModel):
    """Totals of the whole database, whichever process is asked. Times are seconds."""

    model_config = ConfigDict(frozen=True)

    processed: int = Field(description="jobs that completed, those deleted since included")
    failed: int = Field(description="jobs that ended failed and were not put back, those deleted since included")
    cancelled: int = Field(description="jobs that were cancelled and not put back, those deleted since included")
    retried: int = Field(description="attempts that were put back to be tried again")
    in_progress: int = Field(description="jobs that run")
    queue_depth: int = Field(description="jobs that wait: pending and scheduled")
    pending: int = Field(description="jobs that wait for a worker")
    scheduled: int = Field(description="jobs that wait for their time")
    dlq_size: int = Field(description="jobs that stand in the dead letter queue")
    idempotency_keys: int = Field(description="idempotency keys that are in force")
    oldest_pending_age_seconds: float = Field(description="for how long the longest due job has been waiting")

    @classmethod
    def of(cls, state: DatabaseState) -> Metrics:
        """The numbers as they are in the database."""
        totals, present = state.totals, state.totals.present
        ages = [queue.oldest_age_seconds(state.now) or 0.0 for queue in state.queues]
        return cls(
            processed=totals.processed,
            failed=totals.failed,
            cancelled=totals.cancelled,
            retried=totals.retried,
            in_progress=present[Status.PROCESSING],
            queue_depth=present[Status.PENDING] + present[Status.SCHEDULED],
            pending=present[Status.PENDING],
            scheduled=present[Status.SCHEDULED],
            dlq_size=present[Status.FAILED],
            idempotency_keys=totals.idempotency_keys,
            oldest_pending_age_seconds=max(ages, default=0.0),
        )


class Health(Document):
    status: str


class Index(Document):
    """What is here, and where."""

    name: str
    version: str
    links: dict[str, str]


class ProblemField(Document):
    pointer: str
    detail: str


class Problem(Document):
    """An RFC 9457 problem. Some have further members, such as jobId."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: Absent[list[ProblemField]] = None
    job_id: Absent[str] = None
    state: Absent[Status] = None
    result: Absent[JsonValue] = None
    request_id: Absent[str] = None


@dataclass(slots=True)  # there may be ten thousand in an answer, and a model takes five times as long to make
class BulkItem:
    """What became of one item of a bulk request: `id` when it was stored, `problem` when it was not."""

    index: int
    status: int
    id: Absent[str] = None
    problem: Absent[Problem] = None


class BulkAnswer(Document):
    """What became of a bulk request, item by item, in the order in which they were sent."""

    accepted: int
    rejected: int
    items: list[BulkItem]


def _joined(first: list[FieldProblem], further: Iterable[FieldProblem]) -> list[FieldProblem]:
    """Both, without a second problem where there is one already: it would only say the same in other words."""
    known = {problem.pointer for problem in first}
    return first + [problem for problem in further if problem.pointer not in known]


def _details(error: ValidationError) -> Iterable[ErrorDetails]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _field_problem(error: ErrorDetails) -> FieldProblem:
    # pydantic names a field as it was spelt in the input.
    steps = error["loc"]
    detail = OWN_WORDS.get(error["type"]) or error["msg"].replace("Input should be", "must be")
    return FieldProblem("".join(f"/{escape_pointer(str(step))}" for step in steps), detail)
