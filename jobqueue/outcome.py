"""How an attempt can end, as data; and what a task raises (or returns) to say which.

The engine has one repository verb for each outcome. A task that returns completes; one that raises is tried
again; with a `Signal` it says something else. `Signal`s may be raised or returned, the effect is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobqueue.job import JsonValue, cut
from jobqueue.values import escape_pointer

MAX_GROUPS = 10
"""So many groups within each other are told of."""

MAX_SUMMARISED = 20
"""An exception group tells about this many of its exceptions; the message is cut anyway."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed: the class of the exception and its message, at most 2 KiB of it."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The task is done. `result` is what it returned, brought to JSON that can be stored, at most 64 KiB of it."""

    result: JsonValue | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed. Run again while attempts are left: by back-off, or after so many seconds."""

    error: Failure
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed and trying again cannot help."""

    error: Failure


@dataclass(frozen=True, slots=True)
class Snoozed:
    """Not now: run again after so many seconds. The attempt does not count."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job is to end without having been done."""


Outcome = Completed | Retry | Failed | Snoozed | Cancelled


class Signal(Exception):
    """What a task raises, or returns, to end its attempt other than by success or by an ordinary failure."""

    def outcome(self) -> Outcome:
        """The outcome it stands for."""
        raise NotImplementedError


class RetryLater(Signal):
    """This attempt failed; try again after `after_seconds`, or by the usual back-off when that is None."""

    after_seconds: float | None = None  # also of a class of one's own that does not call the following

    def __init__(self, message: str = "", *, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = None if after_seconds is None else _seconds(after_seconds)

    def outcome(self) -> Outcome:
        """`Retry`."""
        return Retry(describe(self), after_seconds=self.after_seconds)


class PermanentFailure(Signal):
    """Trying again cannot help; the job goes to the dead letters at once."""

    def outcome(self) -> Outcome:
        """`Failed`."""
        return Failed(describe(self))


class Snooze(Signal):
    """Nothing failed, but it is too early: run the job again in so many seconds. The attempt does not count."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"snoozed for {seconds} s")
        self.seconds = _seconds(seconds)

    def outcome(self) -> Outcome:
        """`Snoozed`."""
        return Snoozed(self.seconds)


class Cancel(Signal):
    """The job is to be cancelled: it was asked to stop, or there is nothing left to do."""

    def outcome(self) -> Outcome:
        """`Cancelled`."""
        return Cancelled()


def describe(error: BaseException) -> Failure:
    """What a job keeps of an exception. Never what the job was given: pydantic would quote its input."""
    return Failure(class_name(type(error)), cut(_message(error)))


def class_name(cls: type) -> str:
    """The qualified name, as a traceback shows it."""
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def summarise(problems: Sequence[ErrorDetails]) -> str:
    """What is wrong and where, by JSON pointers, without a word of the input itself."""
    return "; ".join(f"{_pointer(problem['loc'])}: {_what(problem)}" for problem in problems)


def _what(problem: ErrorDetails) -> str:
    # The one message of pydantic's that quotes the input.
    return "it has none of the expected tags" if problem["type"] == "union_tag_invalid" else problem["msg"]


def _message(error: BaseException, groups: int = MAX_GROUPS) -> str:
    if isinstance(error, ValidationError):
        return summarise(error.errors(include_url=False, include_context=False, include_input=False))
    if isinstance(error, BaseExceptionGroup) and groups:
        inner = (f"{class_name(type(e))}: {_message(e, groups - 1)}" for e in error.exceptions[:MAX_SUMMARISED])
        return f"{error.message}: {'; '.join(inner)}"
    try:
        return str(error)
    except Exception:  # __str__ is user code too, and a broken one must not cost the job its outcome
        return "(its message cannot be shown)"


def _pointer(location: tuple[int | str, ...]) -> str:
    return "".join(f"/{escape_pointer(str(part))}" for part in location) or "payload"


def _seconds(value: float) -> float:
    try:
        is_some_time = 0 <= value < float("inf")
    except TypeError:  # a timedelta, or text
        is_some_time = False
    if not is_some_time:
        raise ValueError(f"seconds must be a number from 0 on, not {value!r}")
    return float(value)
