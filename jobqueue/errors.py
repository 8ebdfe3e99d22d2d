"""Every error that this package raises on purpose.

JobQueueError
├── InvalidJob          what the client sent cannot become a job (all problems at once)
├── JobNotFound         no job has this id
├── DuplicateJob        the id, idempotency key or unique key is taken by another job
├── KeyReused           the idempotency key was used before, for another request
├── KeyInUse            the first request with this idempotency key is still under way
├── IllegalMove         the job is in a state from which this move is not allowed
├── LeaseLost           this attempt no longer owns the job; whatever it wanted to write was not written
├── QueueFull           too much is waiting here; try again later
├── RateLimited         more is enqueued than may be in a second; try again later
├── ShuttingDown        this process takes no more work
├── Unavailable         MongoDB did not answer, or refused; nothing is known to have been changed
│   └── OutcomeUnknown  the write may or may not have happened; repeating it by the same id is safe
├── SchemaConflict      an index of our name has another definition
├── ProcessFailed       one of several processes does not start, or goes on ending
└── ConfigurationError  the process cannot start as it is set up

Services and repositories raise them; `api/errors.py` turns them into HTTP; handlers do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqueue.job import Job, JobId, Status


class JobQueueError(Exception):
    """The root of the tree; catch it to catch everything that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with the input: where (an RFC 6901 JSON pointer, "" is the whole) and what."""

    pointer: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer or 'body'}: {self.detail}"


@dataclass(frozen=True, slots=True)
class HeaderProblem(FieldProblem):
    """The same about a header, which no pointer can name: its detail does."""

    def __str__(self) -> str:
        return self.detail


class InvalidJob(JobQueueError):
    """The input cannot become a job. `problems` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class JobNotFound(JobQueueError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}")
        self.job_id = job_id


class DuplicateJob(JobQueueError):
    """Another job already has this id, idempotency key or unique key; `existing` is that job, if it can be read."""

    def __init__(self, field: str, value: str, *, existing: Job | None) -> None:
        super().__init__(f"a job with {field} {value!r} exists already")
        self.field = field
        self.value = value
        self.existing = existing


class KeyReused(JobQueueError):
    """This idempotency key stands for another request already: the one that made `job_id`."""

    def __init__(self, key: str, job_id: JobId | str) -> None:
        super().__init__(f"the idempotency key {key!r} was used before, for another request")
        self.key = key
        self.job_id = job_id


class KeyInUse(JobQueueError):
    """The first request with this idempotency key is still under way; what becomes of it is not known yet."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the first request with the idempotency key {key!r} is still under way")
        self.key = key


class IllegalMove(JobQueueError):
    """The job is in a state from which this move is not allowed."""

    def __init__(self, job_id: JobId | str, move: str, status: Status) -> None:
        super().__init__(f"cannot {move} job {job_id!r}: it is {status}")
        self.job_id = job_id
        self.move = move
        self.status = status


class LeaseLost(JobQueueError):
    """This attempt no longer owns its job: it was rescued, or it is gone. Nothing was written."""

    def __init__(self, job_id: JobId | str, lease_id: str) -> None:
        super().__init__(f"lease {lease_id} of job {job_id!r} is lost")
        self.job_id = job_id
        self.lease_id = lease_id


class QueueFull(JobQueueError):
    """Too much is waiting already. `retry_after_seconds` is when to try again."""

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(JobQueueError):
    """More is enqueued than the `limit` of jobs a second. `retry_after_seconds` is when to try again."""

    def __init__(self, *, limit: int, retry_after_seconds: int) -> None:
        super().__init__(f"at most {limit} jobs a second are accepted, by all processes together")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class ShuttingDown(JobQueueError):
    """This process is stopping and takes no more work."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down")


class Unavailable(JobQueueError):
    """MongoDB did not answer in time, or refused."""


class OutcomeUnknown(Unavailable):
    """The write may or may not have happened. Repeating it with the same `job_id` is safe."""

    def __init__(self, job_id: JobId | str, detail: str) -> None:
        super().__init__(detail)
        self.job_id = job_id


class SchemaConflict(JobQueueError):
    """An index with our name has another definition than ours."""


class ProcessFailed(JobQueueError):
    """One of several processes does not start, or goes on ending."""


class ConfigurationError(JobQueueError):
    """The process cannot start as it is set up; the message says what to change."""
