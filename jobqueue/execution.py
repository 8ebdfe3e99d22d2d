"""One attempt: run the task, say how it ended.

Here, and only here, is everything caught that a task may raise, because only here is the code not ours.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from jobqueue.context import TaskContext
from jobqueue.job import MAX_RESULT_BYTES, JsonValue
from jobqueue.loop import is_being_cancelled, task_of_this_step
from jobqueue.outcome import Completed, Outcome, PermanentFailure, Retry, Signal, describe
from jobqueue.tasks import Task
from jobqueue.threads import ThreadRunner
from jobqueue.values import check_value

NOTHING = Completed()


class InvalidResult(PermanentFailure):
    """The task returned what cannot be stored. Permanent: its work is done, and would only be done again."""


async def execute(task: Task, context: TaskContext, payload: JsonValue, *, threads: ThreadRunner) -> Outcome:
    """Run one attempt and say how it ended. Nothing that a task raises gets out of here, `SystemExit`,
    `KeyboardInterrupt` and `GeneratorExit` included (a process is stopped by signals, not by its tasks): all are
    failed attempts.

    Raises `CancelledError` only when this very attempt is being cancelled; a task that lets one from elsewhere
    escape has failed like any other."""
    running = asyncio.current_task()
    try:
        returned = await task.run(context, payload, threads=threads)
        return returned.outcome() if isinstance(returned, Signal) else _completed(returned)
    except asyncio.CancelledError as error:
        if not is_being_cancelled():
            return _failed(error, context)
        context.interrupt()
        raise
    except GeneratorExit as error:
        if task_of_this_step() is not running:  # this coroutine is being closed; there is nobody left to tell
            raise
        return _failed(error, context)
    except BaseException as error:
        return _outcome_of(error, context)


def _outcome_of(error: BaseException, context: TaskContext) -> Outcome:
    signal = _signal_in(error)
    if signal is None:
        return _failed(error, context)
    try:
        return signal.outcome()
    except Exception as broken:  # a class of the task's own, whose instances lack what its base class would set
        return _failed(broken, context)


def _completed(returned: Any) -> Outcome:
    if returned is None:
        return NOTHING
    try:
        result = to_jsonable_python(returned)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        return InvalidResult(f"the result cannot be stored: {error}").outcome()
    if problems := check_value(result):
        text = "; ".join(f"{problem.pointer or 'it'} {problem.detail}" for problem in problems)
        return InvalidResult(f"the result cannot be stored: {text}").outcome()
    size = len(to_json(result))
    return Completed(result if size <= MAX_RESULT_BYTES else {"truncated": True, "bytes": size})


def _failed(error: BaseException, context: TaskContext) -> Retry:
    # Tracebacks stay in the log of the process; the job keeps the error.
    context.process_log.warning("task raised", exc_info=error)
    return Retry(describe(error))


def _signal_in(error: BaseException) -> Signal | None:
    """The signal that was raised, also when an `asyncio.TaskGroup` of the task has wrapped it."""
    inside = [error]
    while inside:
        found = inside.pop()
        if isinstance(found, Signal):
            return found
        if isinstance(found, BaseExceptionGroup):
            inside += reversed(found.exceptions)
    return None
