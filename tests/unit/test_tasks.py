from __future__ import annotations

import asyncio
import functools
import re
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from structlog.testing import capture_logs
from typing_extensions import TypedDict

from jobqueue.errors import ConfigurationError
from jobqueue.execution import execute
from jobqueue.job import MAX_ERROR_MESSAGE_BYTES, Job, JobId, JsonValue, Progress
from jobqueue.loading import load
from jobqueue.outcome import Cancelled, Completed, Failed, Failure, Outcome, Retry, Snoozed
from jobqueue.retry import BackoffPolicy
from jobqueue.tasks import (
    Cancel,
    Declaration,
    PermanentFailure,
    Registry,
    RetryLater,
    Snooze,
    Task,
    TaskContext,
    task,
)
from jobqueue.threads import ThreadRunner

if TYPE_CHECKING:
    from jobqueue.repository import JobFilter


class Email(BaseModel):
    to: str
    copies: int = 1
    at: datetime | None = None


class StrictEmail(BaseModel):
    model_config = ConfigDict(strict=True)
    to: str
    at: datetime


@dataclass
class Address:
    street: str
    number: int


class Range(TypedDict):
    first: int
    last: int


@pytest.fixture
def threads() -> Iterator[ThreadRunner]:
    runner = ThreadRunner()
    yield runner
    runner.close()


def a_task(function: Callable[..., Any]) -> Task:
    return Task.of(function, Declaration("a.task"))


def a_context(payload: JsonValue = None, *, attempt: int = 1, seen: list[Progress] | None = None) -> TaskContext:
    job = Job(id=JobId("job-1"), type="a.task", payload=payload, retry_count=attempt)
    return TaskContext(job, on_progress=(seen if seen is not None else []).append)


async def run(function: Callable[..., Any], payload: JsonValue = None, *, threads: ThreadRunner) -> Outcome:
    return await execute(a_task(function), a_context(payload), payload, threads=threads)


# How a function is called


async def test_a_task_takes_the_payload_the_context_both_or_nothing(threads: ThreadRunner) -> None:
    async def neither() -> str:
        return "nothing"

    async def only_payload(data: Any) -> Any:
        return data

    async def only_context(context: Any) -> Any:
        return context.attempt

    async def by_annotation(ctx: TaskContext, data: Any) -> Any:
        return [ctx.attempt, data]

    async def other_order(data: Any, context: TaskContext) -> Any:
        return [context.attempt, data]

    async def by_keyword(*, context: TaskContext, data: Any) -> Any:
        return [context.attempt, data]

    async def with_a_default(data: Any, retries: int = 9) -> Any:
        return [data, retries]

    assert await run(neither, 5, threads=threads) == Completed("nothing")
    assert await run(only_payload, 5, threads=threads) == Completed(5)
    assert await run(only_context, 5, threads=threads) == Completed(1)
    assert await run(by_annotation, 5, threads=threads) == Completed([1, 5])
    assert await run(other_order, 5, threads=threads) == Completed([1, 5])
    assert await run(by_keyword, 5, threads=threads) == Completed([1, 5])
    assert await run(with_a_default, 5, threads=threads) == Completed([5, 9])


async def test_a_plain_function_runs_in_a_thread(threads: ThreadRunner) -> None:
    def plain(payload: int) -> list[Any]:
        return [payload, threading.current_thread() is threading.main_thread()]

    assert await run(plain, 5, threads=threads) == Completed([5, False])


async def test_a_plain_wrapper_around_a_coroutine_function_is_awaited(threads: ThreadRunner) -> None:
    async def inner(payload: int) -> int:
        return payload + 1

    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[int]:
        return inner(*args, **kwargs)

    assert await run(wrapper, 5, threads=threads) == Completed(6)


def _yields(payload: Any) -> Iterator[int]:
    yield 1


async def _yields_async(payload: Any) -> AsyncIterator[int]:
    yield 1


async def _too_many(payload: Any, context: TaskContext, database: Any) -> None: ...


async def _variable(*payload: Any) -> None: ...


async def _named(**payload: Any) -> None: ...


async def _unusable(payload: ThreadRunner) -> None: ...


async def _unresolvable(payload: JobFilter) -> None: ...


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (_yields, "yields"),
        (_yields_async, "yields"),
        (_too_many, "database"),
        (_variable, r"\*payload"),
        (_named, r"\*\*payload"),
        (_unusable, "the type of 'payload' cannot be used"),
        (_unresolvable, "JobFilter"),
        (Email, "a class is no task"),
    ],
)
def test_a_function_that_cannot_be_called_as_a_task_is_refused_when_it_is_registered(
    function: Callable[..., Any], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Registry().task("a.task")(function)


# Payloads


async def test_a_payload_becomes_what_the_parameter_is_annotated_with(threads: ThreadRunner) -> None:
    async def takes_model(payload: Email) -> str:
        return f"{payload.to} {payload.copies} {payload.at and payload.at.year}"

    async def takes_dataclass(payload: Address) -> str:
        return f"{payload.street} {payload.number}"

    async def takes_typed_dict(payload: Range) -> int:
        return payload["last"] - payload["first"]

    async def takes_builtin(payload: list[int]) -> int:
        return sum(payload)

    async def takes_optional(payload: Email | None) -> bool:
        return payload is None

    email = {"to": "a@b.c", "copies": "2", "at": "2026-02-02T05:30:00Z"}
    assert await run(takes_model, email, threads=threads) == Completed("a@b.c 2 2026")
    assert await run(takes_dataclass, {"street": "Elm", "number": 5}, threads=threads) == Completed("Elm 5")
    assert await run(takes_typed_dict, {"first": 2, "last": 9}, threads=threads) == Completed(7)
    assert await run(takes_builtin, [1, 2, 3], threads=threads) == Completed(6)
    assert await run(takes_optional, None, threads=threads) == Completed(True)


async def test_a_strict_model_may_have_what_json_can_only_write_as_text(threads: ThreadRunner) -> None:
    async def send(payload: StrictEmail) -> int:
        return payload.at.year

    assert await run(send, {"to": "a", "at": "2026-02-02T05:30:00Z"}, threads=threads) == Completed(2026)
    assert isinstance(await run(send, {"to": 5, "at": "2026-02-02T05:30:00Z"}, threads=threads), Failed)


async def test_what_was_written_by_hand_in_the_shell_is_validated_as_its_json(threads: ThreadRunner) -> None:
    async def send(payload: StrictEmail) -> int:
        return payload.at.year

    assert await run(send, {"to": "a", "at": datetime(2026, 2, 2, tzinfo=UTC)}, threads=threads) == Completed(2026)


async def test_an_unannotated_payload_is_handed_over_as_it_is(threads: ThreadRunner) -> None:
    given = {"a.b": [1, None, {"$c": 2.5}]}

    async def same(payload) -> bool:  # type: ignore[no-untyped-def]  # that is the point
        return payload is given

    assert await run(same, given, threads=threads) == Completed(True)


async def test_a_payload_that_does_not_fit_fails_for_good_and_names_every_problem_but_not_the_payload(
    threads: ThreadRunner,
) -> None:
    called = False

    async def send(payload: Email) -> None:
        nonlocal called
        called = True

    outcome = await run(send, {"copies": "secret-value", "at": "never"}, threads=threads)

    assert isinstance(outcome, Failed)
    assert outcome.error.type == "jobqueue.parameters.InvalidPayload"
    assert "/to: " in outcome.error.message
    assert "/copies: " in outcome.error.message
    assert "/at: " in outcome.error.message
    assert "secret-value" not in outcome.error.message
    assert not called


# Outcomes


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (RetryLater("busy"), Retry(Failure("jobqueue.outcome.RetryLater", "busy"))),
        (RetryLater("busy", after_seconds=9), Retry(Failure("jobqueue.outcome.RetryLater", "busy"), 9.0)),
        (PermanentFailure("no"), Failed(Failure("jobqueue.outcome.PermanentFailure", "no"))),
        (Snooze(60), Snoozed(60.0)),
        (Cancel("not needed"), Cancelled()),
    ],
)
async def test_a_signal_says_how_the_attempt_ended_whether_raised_or_returned_or_from_a_group(
    signal: Exception, expected: Outcome, threads: ThreadRunner
) -> None:
    async def raises() -> None:
        raise signal

    async def returns() -> Exception:
        return signal

    async def raises_in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(raises())

    def raises_in_a_thread() -> None:
        raise signal

    assert await run(raises, threads=threads) == expected
    assert await run(returns, threads=threads) == expected
    assert await run(raises_in_a_group, threads=threads) == expected
    assert await run(raises_in_a_thread, threads=threads) == expected


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), timedelta(minutes=5), "60"])
def test_a_signal_takes_no_time_that_is_none(seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds must be a number from 0 on"):
        Snooze(seconds)
    with pytest.raises(ValueError, match="seconds must be a number from 0 on"):
        RetryLater(after_seconds=seconds)


class Busy(RetryLater):
    """Takes something of its own, and does not call its base class."""

    def __init__(self, who: str) -> None:
        self.who = who


class Nap(Snooze):
    """Lacks even what it stands for."""

    def __init__(self) -> None:
        pass


async def test_a_signal_of_ones_own_need_not_call_its_base_class(threads: ThreadRunner) -> None:
    async def busy() -> None:
        raise Busy("the printer")

    async def nap() -> None:
        raise Nap

    kind = f"{__name__}.Busy"
    assert await run(busy, threads=threads) == Retry(Failure(kind, "the printer"))
    napped = await run(nap, threads=threads)
    assert isinstance(napped, Retry)
    assert napped.error.type == "AttributeError"


class CardDeclined(PermanentFailure):
    """A team's own word for it."""


async def test_any_other_exception_is_tried_again_and_its_traceback_is_logged(threads: ThreadRunner) -> None:
    async def fail() -> None:
        raise LookupError("no such customer")

    with capture_logs() as lines:
        outcome = await run(fail, threads=threads)

    assert outcome == Retry(Failure("LookupError", "no such customer"))
    (line,) = lines
    assert (line["job_id"], line["type"], line["attempt"]) == ("job-1", "a.task", 1)
    assert isinstance(line["exc_info"], LookupError)


async def test_the_class_of_an_error_is_told_with_its_module(threads: ThreadRunner) -> None:
    async def fail() -> None:
        raise CardDeclined("expired")

    outcome = await run(fail, threads=threads)

    assert outcome == Failed(Failure(f"{__name__}.CardDeclined", "expired"))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("plain", [False, True])
async def test_a_task_cannot_end_the_worker(error: BaseException, plain: bool, threads: ThreadRunner) -> None:
    def fail() -> None:
        raise error

    async def fail_async() -> None:
        raise error

    outcome = await run(fail if plain else fail_async, threads=threads)

    assert isinstance(outcome, Retry)
    assert outcome.error.type == type(error).__name__


def test_an_attempt_that_is_closed_with_its_loop_says_nothing() -> None:
    async def wait() -> None:
        await asyncio.Future()

    async def begin() -> Coroutine[object, object, Outcome]:
        attempt = execute(a_task(wait), a_context(), None, threads=ThreadRunner())
        attempt.send(None)
        return attempt

    begun = asyncio.run(begin())
    with capture_logs() as lines:
        begun.close()

    assert lines == []


async def test_being_cancelled_is_no_outcome_and_the_context_says_so(threads: ThreadRunner) -> None:
    begun = asyncio.Event()
    context = a_context()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    attempt = asyncio.create_task(execute(a_task(wait), context, None, threads=threads))
    await begun.wait()
    assert not context.cancelled
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt

    assert context.cancelled


async def test_a_cancellation_from_within_is_an_ordinary_failure(threads: ThreadRunner) -> None:
    async def fail() -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        inner.cancel()
        await inner

    assert await run(fail, threads=threads) == Retry(Failure("asyncio.exceptions.CancelledError", ""))


async def test_a_thread_sees_that_its_attempt_is_not_wanted_any_more(threads: ThreadRunner) -> None:
    begun, noticed = threading.Event(), threading.Event()

    def work(context: TaskContext) -> None:
        begun.set()
        while not context.cancelled:
            threading.Event().wait(0.005)
        noticed.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await execute(a_task(work), a_context(), None, threads=threads)

    assert await asyncio.to_thread(noticed.wait, 30)


@pytest.mark.parametrize("text", ["x" * 5_000, "ä" * 5_000, "x" + "\N{PILE OF POO}" * 2_000, "\ud800" * 3_000])
async def test_a_message_is_cut_to_two_kibibytes_of_valid_text(text: str, threads: ThreadRunner) -> None:
    async def fail() -> None:
        raise ValueError(text)

    outcome = await run(fail, threads=threads)

    assert isinstance(outcome, Retry)
    # At most three bytes of a character that was cut through are missing.
    assert MAX_ERROR_MESSAGE_BYTES - 3 <= len(outcome.error.message.encode()) <= MAX_ERROR_MESSAGE_BYTES


async def test_an_error_that_cannot_be_shown_costs_nothing_but_its_message(threads: ThreadRunner) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("broken")

    async def fail() -> None:
        raise Broken

    outcome = await run(fail, threads=threads)

    assert isinstance(outcome, Retry)
    assert outcome.error.message == "(its message cannot be shown)"


async def test_a_model_that_a_task_could_not_read_does_not_put_the_data_into_the_message(
    threads: ThreadRunner,
) -> None:
    async def fail() -> None:
        Email.model_validate({"copies": "secret-value"})

    outcome = await run(fail, threads=threads)

    assert isinstance(outcome, Retry)
    assert "/to: " in outcome.error.message
    assert "secret-value" not in outcome.error.message


async def test_the_message_of_an_exception_group_tells_what_is_in_it(threads: ThreadRunner) -> None:
    async def fail() -> None:
        raise ExceptionGroup("two went wrong", [LookupError("a"), ValueError("b")])

    outcome = await run(fail, threads=threads)

    assert outcome == Retry(Failure("ExceptionGroup", "two went wrong: LookupError: a; ValueError: b"))


async def test_groups_may_be_as_deep_as_they_like(threads: ThreadRunner) -> None:
    def within(error: Exception) -> Exception:
        for _ in range(3_000):
            error = ExceptionGroup("deeper", [error])
        return error

    async def fail() -> None:
        raise within(ValueError("bottom"))

    async def give_up() -> None:
        raise within(PermanentFailure("never"))

    with capture_logs():
        failed = await run(fail, threads=threads)
    assert isinstance(failed, Retry)
    assert failed.error.type == "ExceptionGroup"
    assert await run(give_up, threads=threads) == Failed(Failure("jobqueue.outcome.PermanentFailure", "never"))


class Card(BaseModel):
    kind: Literal["card"]


class Cash(BaseModel):
    kind: Literal["cash"]


async def test_the_tag_of_a_payload_is_not_quoted_either(threads: ThreadRunner) -> None:
    async def pay(payload: Annotated[Card | Cash, Field(discriminator="kind")]) -> None: ...

    outcome = await run(pay, {"kind": "secret-value"}, threads=threads)

    assert isinstance(outcome, Failed)
    assert outcome.error.message.endswith("payload: it has none of the expected tags")


async def test_a_result_is_brought_to_json(threads: ThreadRunner) -> None:
    async def work() -> Any:
        return {"email": Email(to="a"), "address": Address("Elm", 5), "pair": (1, 2), "none": None}

    expected = {"email": {"to": "a", "copies": 1, "at": None}, "address": {"street": "Elm", "number": 5}}
    assert await run(work, threads=threads) == Completed({**expected, "pair": [1, 2], "none": None})


async def test_a_result_that_is_no_json_fails_for_good_because_the_work_is_done(threads: ThreadRunner) -> None:
    async def work() -> object:
        return object()

    def recursive() -> list[Any]:
        endless: list[Any] = []
        endless.append(endless)
        return endless

    for function in (work, recursive):
        outcome = await run(function, threads=threads)
        assert isinstance(outcome, Failed)
        assert "the result cannot be stored" in outcome.error.message


# The context


async def test_progress_takes_effect_with_await_and_without(threads: ThreadRunner) -> None:
    seen: list[Progress] = []

    async def work(context: TaskContext) -> None:
        await context.progress(10, "begun")

    def plain(context: TaskContext) -> None:
        context.progress(20)

    for function in (work, plain):
        await execute(a_task(function), a_context(seen=seen), None, threads=threads)

    assert seen == [Progress(percent=10, message="begun"), Progress(percent=20)]


@pytest.mark.parametrize(("told", "shown"), [(-5, 0), (100.0000001, 100), (float("nan"), 0), (float("inf"), 100)])
def test_a_wrong_percentage_does_not_fail_the_job(told: float, shown: float) -> None:
    seen: list[Progress] = []

    a_context(seen=seen).progress(told, "x" * 2_000)

    assert seen == [Progress(percent=shown, message="x" * 1_024)]


def test_the_context_shows_the_job_and_its_log_lines_carry_it() -> None:
    context = a_context({"a": 1}, attempt=2)

    with capture_logs() as lines:
        context.log.info("half done", step=3)

    assert (context.attempt, context.payload, context.job.id) == (2, {"a": 1}, "job-1")
    assert lines == [
        {"event": "half done", "step": 3, "job_id": "job-1", "type": "a.task", "attempt": 2, "log_level": "info"}
    ]


# Names and limits


async def something(payload: Any) -> None: ...


async def something_else(payload: Any) -> None: ...


@pytest.mark.parametrize("name", ["", "with space", "ü", "a/b", "x" * 129])
def test_a_name_that_no_job_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"test_tasks\.py:\d+: .* is no name of a task"):
        Registry().task(name)(something)


@pytest.mark.parametrize("limits", [{"max_retries": 0}, {"max_retries": 101}, {"max_retries": 1.5}, {"timeout": 0}])
def test_limits_that_no_job_can_have_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Registry().task("a", **limits)(something)


def test_the_decorator_without_parentheses_is_refused() -> None:
    wrong: Any = something

    with pytest.raises(ConfigurationError, match="parentheses"):
        task(wrong)
    with pytest.raises(ConfigurationError, match="parentheses"):
        Registry().task(wrong)


def test_two_functions_of_one_name_are_refused_and_both_places_told() -> None:
    registry = Registry()
    registry.task("same")(something)
    registry.task("same")(something)

    with pytest.raises(ConfigurationError, match=r"'same': .*test_tasks\.py:\d+ and .*test_tasks\.py:\d+"):
        registry.task("same")(something_else)


def test_a_task_has_the_name_of_its_function_unless_one_is_given_and_the_function_stays_what_it_was() -> None:
    registry = Registry()

    decorated = registry.task(max_retries=5, timeout=30)(something)

    assert decorated is something
    found = registry.find("something")
    assert found is not None
    assert (found.max_retries, found.timeout_seconds, found.is_async) == (5, 30, True)


async def test_a_type_without_a_task_is_tried_again_and_the_error_names_the_known_types(
    threads: ThreadRunner,
) -> None:
    registry = Registry()
    registry.task("known.b")(something)
    registry.task("known.a")(something_else)

    outcome = await execute(registry.task_for("unknown"), a_context(), None, threads=threads)

    assert isinstance(outcome, Retry)
    assert outcome.error.message == "no task is named 'unknown' here; known are: known.a, known.b"
    assert registry.find("unknown") is None


def test_a_type_may_have_any_name_that_a_job_can_have_and_falls_back() -> None:
    fallback = a_task(something)

    assert Registry(fallback=fallback).task_for("unknown") is fallback


# Loading


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("from jobqueue.tasks import Registry, task\n" + text)
    return path


def names(registry: Registry) -> list[str]:
    return [each.name for each in registry]


ONE = "@task('{0}')\nasync def work(payload): ...\n"


def test_a_module_of_the_current_directory_is_loaded_by_its_name(folder: Path) -> None:
    write(folder / "shop" / "mail.py", "@task('email.send', max_retries=5, timeout=30)\nasync def send(payload): ...")

    registry = load(["shop.mail"])

    found = registry.find("email.send")
    assert found is not None
    assert (found.max_retries, found.timeout_seconds) == (5, 30)


def test_a_file_is_loaded_by_its_path_and_may_import_its_neighbours(folder: Path) -> None:
    write(folder / "deep" / "neighbour_module.py", ONE.format("a"))
    path = write(folder / "deep" / "my_tasks.py", "from neighbour_module import work\n" + "x = work\n")

    assert names(load([str(path)])) == ["a"]
    assert names(load([str(path.relative_to(folder))])) == ["a"], "and again"


def test_tasks_of_submodules_and_registries_and_imported_ones_are_found_once(folder: Path) -> None:
    write(folder / "pkg" / "__init__.py", "from . import inner\nfrom .inner import work as again\nimport other_module")
    write(folder / "pkg" / "inner.py", ONE.format("inner") + "r = Registry()\n@r.task('registered')\ndef f(): ...")
    write(folder / "other_module.py", ONE.format("elsewhere"))

    assert names(load(["pkg"])) == ["inner", "registered"]
    assert names(load(["pkg", "other_module"])) == ["elsewhere", "inner", "registered"]


def test_one_load_knows_nothing_of_the_tasks_of_another(folder: Path) -> None:
    write(folder / "first_module.py", ONE.format("first"))
    write(folder / "second_module.py", ONE.format("second"))

    assert names(load(["first_module"])) == ["first"]
    assert names(load(["second_module"])) == ["second"]


def test_a_function_may_be_several_tasks_and_be_wrapped_afterwards(folder: Path) -> None:
    write(
        folder / "several_module.py",
        "import functools\n"
        "def wrapped(f):\n"
        "    @functools.wraps(f)\n"
        "    async def inner(*a, **k): return ['wrapped', await f(*a, **k)]\n"
        "    return inner\n"
        "@wrapped\n@task('a')\n@task('b')\nasync def work(payload): return payload\n",
    )

    registry = load(["several_module"])

    assert names(registry) == ["a", "b"]
    assert registry.task_for("a").function.__name__ == "work"


async def test_what_stands_around_the_decorator_is_what_runs(folder: Path, threads: ThreadRunner) -> None:
    write(
        folder / "around_module.py",
        "import functools\n"
        "def wrapped(f):\n"
        "    @functools.wraps(f)\n"
        "    async def inner(*a, **k): return ['wrapped', await f(*a, **k)]\n"
        "    return inner\n"
        "@wrapped\n@task('a')\nasync def work(payload): return payload\n",
    )

    outcome = await execute(load(["around_module"]).task_for("a"), a_context(), 5, threads=threads)

    assert outcome == Completed(["wrapped", 5])


def test_objects_that_answer_to_every_name_are_no_tasks(folder: Path) -> None:
    lazy = "class Lazy:\n    def __getattr__(self, name): return self\n    def __call__(self): ...\nlazy = Lazy()\n"
    write(folder / "answering_module.py", lazy + ONE.format("a"))

    assert names(load(["answering_module"])) == ["a"]


def test_duplicates_in_two_modules_are_refused_and_both_places_told(folder: Path) -> None:
    write(folder / "one_module.py", ONE.format("same"))
    write(folder / "two_module.py", ONE.format("same"))

    with pytest.raises(ConfigurationError, match=r"one_module\.py:2 and .*two_module\.py:2"):
        load(["one_module", "two_module"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import no_such_package\n", r"No module named 'no_such_package' \(.*broken_module\.py:2\)"),
        ("\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken_module\.py:3\)"),
        ("def f(:\n", r"SyntaxError: invalid syntax \(.*broken_module\.py:2\)"),
        ("eval('1 +')\n", r"SyntaxError: invalid syntax \(.*broken_module\.py:2\)"),
        ("task(5)(print)\n", r"TypeError: .* \(.*broken_module\.py:2\)"),  # raised by our code, in a dataclass
        ("raise SystemExit(1)\n", r"SystemExit: 1 \(.*broken_module\.py:2\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_clear_error_with_its_cause(text: str, what: str, folder: Path) -> None:
    write(folder / "broken_module.py", text)

    with pytest.raises(ConfigurationError, match=what) as caught:
        load(["broken_module"])

    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize(
    ("text", "what"), [("def f(:\n", "SyntaxError: invalid syntax"), ("1 / 0\n", "ZeroDivisionError: division by zero")]
)
def test_what_is_wrong_in_a_module_that_another_imports_is_told_with_its_own_place(
    text: str, what: str, folder: Path
) -> None:
    write(folder / "importlib_of_mine" / "__init__.py", "\n\nfrom . import b\n")
    write(folder / "importlib_of_mine" / "b.py", text)

    with pytest.raises(ConfigurationError) as refused:
        load(["importlib_of_mine"])

    place = folder / "importlib_of_mine" / "b.py"
    assert str(refused.value) == f"cannot load tasks from 'importlib_of_mine': {what} ({place}:2)"


@pytest.mark.parametrize("name", ["no_such_module", "no_such_file.py", "", ".relative", "a..b"])
def test_a_module_that_is_not_there_is_one_clear_error(name: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot load tasks from"):
        load([name])


def test_a_module_without_tasks_is_an_error(folder: Path) -> None:
    write(folder / "idle_module.py", "")

    with pytest.raises(ConfigurationError, match="there is no task in 'idle_module'"):
        load(["idle_module"])


def test_a_package_that_imports_none_of_its_modules_is_told_to_do_so(folder: Path) -> None:
    write(folder / "idle_package" / "__init__.py", "")
    write(folder / "idle_package" / "mail.py", ONE.format("a"))

    with pytest.raises(ConfigurationError, match=r"there is no task in 'idle_package': .* import in its __init__\.py"):
        load(["idle_package"])


@pytest.mark.parametrize("stem", ["email", "pytest"])
def test_a_file_with_the_name_of_another_module_is_refused_rather_than_mixed_up(stem: str, folder: Path) -> None:
    path = write(folder / f"{stem}.py", ONE.format("a"))

    with pytest.raises(ConfigurationError, match="another module is named"):
        load([str(path)])


def test_a_mistake_in_a_decorator_is_reported_with_its_place(folder: Path) -> None:
    write(folder / "mistaken_module.py", "@task('a b')\ndef f(): ...")

    with pytest.raises(ConfigurationError, match=r"mistaken_module\.py:2: 'a b' is no name"):
        load(["mistaken_module"])


# The documentation


async def test_the_examples_of_the_documentation_work(folder: Path, threads: ThreadRunner) -> None:
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    (folder / "documented_module.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))

    registry = load(["documented_module"])

    async def outcome_of(name: str, payload: JsonValue) -> Outcome:
        return await execute(registry.task_for(name), a_context(payload), payload, threads=threads)

    assert names(registry) == ["email.send", "order.charge", "report.render"]
    assert await outcome_of("email.send", {"to": "a", "subject": "b"}) == Completed({"attempt": 1})
    assert await outcome_of("report.render", {"pages": 3}) == Completed("done")
    declined = Failure("documented_module.CardDeclined", "the bank says no")
    assert await outcome_of("order.charge", {"state": "declined"}) == Failed(declined)
    assert await outcome_of("order.charge", {"state": "open"}) == Snoozed(300.0)


def test_a_task_may_have_a_back_off_and_nothing_else_in_its_place() -> None:
    registry = Registry()

    @registry.task("patient", backoff=BackoffPolicy(base_seconds=60, max_seconds=3600))
    async def patient() -> None: ...

    found = registry.find("patient")
    assert found is not None
    assert found.backoff == BackoffPolicy(60, 3600)
    with pytest.raises(ConfigurationError, match="BackoffPolicy"):
        registry.task("wrong", backoff=(1, 60))(patient)  # type: ignore[arg-type]  # what people will try
