"""The tasks of the worker processes that are measured: `jobqueue worker --tasks benchmarks.tasks`."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

from benchmarks.witness import record
from jobqueue.tasks import task


@task("noop")
async def noop(payload: dict[str, float]) -> None:
    """Nothing but the record of it."""
    record(payload)


@task("answer")
async def answer(payload: dict[str, float]) -> dict[str, float]:
    """The same with a result of its own."""
    record(payload)
    return {"n": payload["n"]}


def spin(seconds: float) -> int:
    """Keep a core busy with Python for so long."""
    turns, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        turns += 1
    return turns


@cache
def processes() -> ProcessPoolExecutor:
    """As many as the busy tasks. Spawned, never forked: a driver does not survive a fork."""
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@task("spin-thread")
def spin_in_a_thread(payload: dict[str, float]) -> int:
    """A plain function: the pool runs it in a thread."""
    return spin(payload["seconds"])


@task("spin-process")
async def spin_in_a_process(payload: dict[str, float]) -> int:
    """What a CPU-bound task should do."""
    return await asyncio.get_running_loop().run_in_executor(processes(), spin, payload["seconds"])


@task("spin-loop")
async def spin_on_the_loop(payload: dict[str, float]) -> int:
    """What no task should do: nothing else of the process runs meanwhile."""
    return spin(payload["seconds"])
