"""Tasks to try the service with, and to test it: registered only where simulation is on."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from jobqueue.context import TaskContext
from jobqueue.job import JsonValue
from jobqueue.outcome import PermanentFailure
from jobqueue.tasks import Declaration, Registry, Task

SIMULATED_SECONDS = 0.05
LONGEST_SLEEP_SECONDS = 86_400.0
UNSTABLE_FAILURES = 2
"""`unstable-job` succeeds on its third attempt, which a job has by default."""

BUILT_IN = Registry()


class TaskFailed(Exception):
    """What the built-in tasks fail with."""


class Options(BaseModel):
    """Base of the payloads: a mistyped name is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SleepOptions(Options):
    seconds: Annotated[float, Field(ge=0, le=LONGEST_SLEEP_SECONDS)]


class FailOptions(Options):
    message: str = "failed, as it was asked to"
    permanent: bool = False


class FlakyOptions(Options):
    failures: Annotated[int, Field(ge=0, le=100)]


@BUILT_IN.task("echo")
async def echo(payload: JsonValue) -> JsonValue:
    """Return the payload."""
    return payload


@BUILT_IN.task("sleep")
async def sleep(payload: SleepOptions) -> dict[str, float]:
    """Sleep for so many seconds."""
    await asyncio.sleep(payload.seconds)
    return {"slept": payload.seconds}


@BUILT_IN.task("fail")
async def fail(payload: FailOptions | None, context: TaskContext) -> None:
    """Fail always, and log it; with `permanent` at the first attempt for good."""
    options = payload or FailOptions()
    context.log.warning("failing as asked", permanent=options.permanent)
    raise PermanentFailure(options.message) if options.permanent else TaskFailed(options.message)


@BUILT_IN.task("flaky")
async def flaky(payload: FlakyOptions, context: TaskContext) -> dict[str, int]:
    """Fail the first so many attempts, then succeed."""
    return _succeed_after(payload.failures, context)


@BUILT_IN.task("unstable-job")
async def unstable(context: TaskContext) -> dict[str, int]:
    """Fail twice, then succeed."""
    return _succeed_after(UNSTABLE_FAILURES, context)


async def simulate(context: TaskContext, payload: JsonValue) -> dict[str, bool]:
    """Stand in for the task of a type that has none: sleep briefly, and say that nothing real was done."""
    await asyncio.sleep(SIMULATED_SECONDS)
    return {"simulated": True}


def simulation(registry: Registry) -> Registry:
    """The tasks of `registry`, the built-in ones whose names it leaves free, and for every other type one that
    only pretends."""
    simulating = Registry(fallback=Task.of(simulate, Declaration("simulate")))
    for each in registry:
        simulating.add(each)
    for each in BUILT_IN:
        if registry.find(each.name) is None:
            simulating.add(each)
    return simulating


def _succeed_after(failures: int, context: TaskContext) -> dict[str, int]:
    if context.attempt <= failures:
        raise TaskFailed(f"attempt {context.attempt} failed; it succeeds from attempt {failures + 1} on")
    return {"attempts": context.attempt}
