"""Tasks: the code that jobs run. A job's `type` is the name of its task.

    @task("email.send", max_retries=5, timeout=30)
    async def send(payload: Email, context: TaskContext) -> dict[str, str]: ...

Coroutine functions run on the event loop, plain functions in threads. What a task returns is the result of the
job; what it raises or returns decides how the attempt ended (`outcome.py`, `execution.py`). This module is
what the code of tasks imports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from jobqueue.context import TaskContext
from jobqueue.errors import ConfigurationError
from jobqueue.job import MAX_RETRIES_RANGE, NAME_PATTERN, JsonValue
from jobqueue.outcome import Cancel, PermanentFailure, RetryLater, Snooze
from jobqueue.parameters import InvalidPayload, Parameters, parameters_of
from jobqueue.retry import BackoffPolicy
from jobqueue.threads import ThreadRunner

__all__ = [
    "BackoffPolicy",
    "Cancel",
    "Declaration",
    "InvalidPayload",
    "PermanentFailure",
    "Registry",
    "RetryLater",
    "Snooze",
    "Task",
    "TaskContext",
    "UnknownType",
    "declarations",
    "task",
]

F = TypeVar("F", bound=Callable[..., Any])
DECLARED = "__jobqueue_tasks__"
"""The attribute by which a function carries its declarations to whoever loads its module."""

KNOWN_NAMES_SHOWN = 20


class UnknownType(RetryLater):
    """No task has the name that the job has as its type. Tried again: a rolling deploy brings the task."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What `@task(...)` says about a function. What is None is left to the job and the settings."""

    name: str
    max_retries: int | None = None
    timeout_seconds: float | None = None
    backoff: BackoffPolicy | None = None

    def __post_init__(self) -> None:
        """Raises `ConfigurationError`."""
        if not NAME_PATTERN.fullmatch(self.name):
            raise ConfigurationError(f"{self.name!r} is no name of a task (letters, digits, . _ : -; up to 128)")
        if self.max_retries is not None and self.max_retries not in MAX_RETRIES_RANGE:
            raise ConfigurationError(f"max_retries must be a whole number from 1 to 100, not {self.max_retries!r}")
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds < float("inf"):
            raise ConfigurationError(f"timeout must be more than 0 seconds, not {self.timeout_seconds!r}")
        if not isinstance(self.backoff, BackoffPolicy | None):
            raise ConfigurationError(
                f"backoff must be a BackoffPolicy(base_seconds, max_seconds), not {self.backoff!r}"
            )


@dataclass(frozen=True, slots=True)
class Task:
    """A named function, and how to call it."""

    name: str
    function: Callable[..., Any]
    max_retries: int | None
    timeout_seconds: float | None
    backoff: BackoffPolicy | None
    parameters: Parameters
    is_async: bool

    @classmethod
    def of(cls, function: Callable[..., Any], declaration: Declaration) -> Task:
        """Make a task of a function. Raises `ConfigurationError` when it cannot be called as one."""
        try:
            _check_kind(function)
            parameters = parameters_of(function)
        except ConfigurationError as error:
            raise ConfigurationError(f"{_place(function)}: task {declaration.name!r}: {error}") from error
        return cls(
            name=declaration.name,
            function=function,
            max_retries=declaration.max_retries,
            timeout_seconds=declaration.timeout_seconds,
            backoff=declaration.backoff,
            parameters=parameters,
            is_async=inspect.iscoroutinefunction(function),
        )

    @property
    def place(self) -> str:
        """Where it is defined, for messages."""
        return _place(self.function)

    async def run(self, context: TaskContext, payload: JsonValue, *, threads: ThreadRunner) -> Any:
        """Call the function; return and raise what it does. Raises `InvalidPayload` without calling it."""
        arguments = self.parameters.arguments(context, payload)
        if self.is_async:
            return await self.function(**arguments)
        returned = await threads.run(self.function, **arguments)
        # A plain wrapper around a coroutine function cannot be told from a plain function before it returns.
        return await returned if inspect.isawaitable(returned) else returned


class Registry:
    """The tasks of one process, by name."""

    def __init__(self, *, fallback: Task | None = None) -> None:
        """`fallback` runs the jobs whose type no task has."""
        self._tasks: dict[str, Task] = {}
        self._fallback = fallback

    def __iter__(self) -> Iterator[Task]:
        """The tasks in the order of their names."""
        return iter(sorted(self._tasks.values(), key=lambda each: each.name))

    def __len__(self) -> int:
        return len(self._tasks)

    def task(
        self,
        name: str | None = None,
        *,
        max_retries: int | None = None,
        timeout: float | None = None,
        backoff: BackoffPolicy | None = None,
    ) -> Callable[[F], F]:
        """Decorate a function to make it a task of this registry; otherwise as `task` below."""
        _check_parentheses(name)

        def register(function: F) -> F:
            declaration = _declare(function, name, max_retries=max_retries, timeout=timeout, backoff=backoff)
            self.add(Task.of(function, declaration))
            return function

        return register

    def add(self, new: Task) -> None:
        """Take in a task. Raises `ConfigurationError` when another function has its name already."""
        old = self._tasks.setdefault(new.name, new)
        if old.function is not new.function:
            raise ConfigurationError(f"two tasks are named {new.name!r}: {old.place} and {new.place}")

    @property
    def types(self) -> frozenset[str] | None:
        """The types of jobs that can be run; None when that is any."""
        return None if self._fallback is not None else frozenset(self._tasks)

    def find(self, name: str) -> Task | None:
        """The task of this name, if there is one; never the fallback."""
        return self._tasks.get(name)

    def task_for(self, job_type: str) -> Task:
        """What runs a job of this type: its task, the fallback, or one that fails and names the known types."""
        return self._tasks.get(job_type) or self._fallback or self._unknown(job_type)

    def _unknown(self, job_type: str) -> Task:
        names = [each.name for each in self][:KNOWN_NAMES_SHOWN]
        more = ", ..." if len(self) > len(names) else ""

        async def no_such_task() -> None:
            raise UnknownType(f"no task is named {job_type!r} here; known are: {', '.join(names) or 'none'}{more}")

        return Task.of(no_such_task, Declaration(job_type))


def task(
    name: str | None = None,
    *,
    max_retries: int | None = None,
    timeout: float | None = None,
    backoff: BackoffPolicy | None = None,
) -> Callable[[F], F]:
    """Decorate a function to make it a task of the module that it stands in, found when that is loaded.

    The function stays as it is and can be called directly. Its name is the task's unless one is given;
    `timeout` is in seconds, for one attempt; `backoff` is how long to wait after failed ones.
    Raises `ConfigurationError` for what cannot be."""
    _check_parentheses(name)

    def declare(function: F) -> F:
        declaration = _declare(function, name, max_retries=max_retries, timeout=timeout, backoff=backoff)
        Task.of(function, declaration)  # a signature that does not work is reported where it stands
        setattr(function, DECLARED, (*getattr(function, DECLARED, ()), declaration))
        return function

    return declare


def declarations(candidate: object) -> Iterator[Task]:
    """The tasks that a function was declared to be with `@task`; none for anything else."""
    if callable(candidate) and not inspect.isclass(candidate):
        # Statically, since a module may hold objects that answer to every name, or do work when asked.
        for declaration in inspect.getattr_static(candidate, DECLARED, ()):
            yield Task.of(candidate, declaration)


def _check_parentheses(name: object) -> None:
    if callable(name):
        raise ConfigurationError(f"{_place(name)}: write @task() with parentheses, or @task('a.name')")


def _declare(
    function: Callable[..., Any],
    name: str | None,
    *,
    max_retries: int | None,
    timeout: float | None,
    backoff: BackoffPolicy | None,
) -> Declaration:
    chosen = getattr(function, "__name__", "") if name is None else name
    try:
        return Declaration(chosen, max_retries, timeout, backoff)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_place(function)}: {error}") from None


def _check_kind(function: Callable[..., Any]) -> None:
    if inspect.isclass(function):
        raise ConfigurationError("a class is no task; decorate a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError("a function that yields is no task: calling it would run nothing")


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)
