"""Processes that are measured: the product's own commands, as a user starts them, and others of this package."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import uvloop

from benchmarks.database import Database
from benchmarks.in_process import MOST_PENDING
from benchmarks.ports import free_port
from jobqueue import logs
from jobqueue.process import calm_the_garbage_collector

ROOT = Path(__file__).parents[1]
TASKS = "benchmarks.tasks"
START_SECONDS = 60.0
STOP_SECONDS = 60.0

T = TypeVar("T")
Command = Literal["serve", "api", "worker"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that listens."""

    pid: int
    url: str


@asynccontextmanager
async def jobqueue_process(
    command: Command, database: Database, name: str, **settings: object
) -> AsyncIterator[Process]:
    """`jobqueue serve`, `api` or `worker` on this database, up; stopped by SIGTERM afterwards."""
    port = free_port()
    wanted = {
        "mongodb_uri": database.uri,
        "database": name,
        "log_level": "WARNING",
        "log_format": "json",
        "port": port,
        "max_pending": MOST_PENDING,
        **settings,
    }
    tasks = [] if command == "api" else ["--tasks", TASKS]
    environment = {f"JOBQUEUE_{key.upper()}": str(value) for key, value in wanted.items()}
    program = [sys.executable, str(ROOT / "cmd" / "jobqueue"), command, *tasks]
    async with python_process(program, port=port, environment=environment) as process:
        yield process


@asynccontextmanager
async def python_process(
    program: Sequence[str], *, port: int | None, environment: Mapping[str, str]
) -> AsyncIterator[Process]:
    """This program, once it takes connections on this port, if it is to; stopped by SIGTERM afterwards."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JOBQUEUE_")}
    kept = {key: value for key, value in os.environ.items() if key.startswith("JOBQUEUE_BENCH_")}
    child = await asyncio.create_subprocess_exec(
        *program, cwd=ROOT, env={**clean, **kept, **environment}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        if port is not None:
            await _wait_for_connections(child, port)
        yield Process(child.pid, f"http://127.0.0.1:{port}")
    finally:
        await _stop(child)


@asynccontextmanager
async def several_workers(count: int, database: Database, name: str, **settings: object) -> AsyncIterator[None]:
    """So many worker processes, all up."""
    async with AsyncExitStack() as stack:
        starting = [jobqueue_process("worker", database, name, **settings) for _ in range(count)]
        for process in starting:
            await stack.enter_async_context(process)
        yield


async def in_fresh_process(work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """What this function of a module returns, awaited in a process of its own, which holds nothing of this one."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return await loop.run_in_executor(pool, partial(run_as_the_product, work, *arguments))


def run_as_the_product(work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run it on the loop that the product has, the garbage collector set as there."""
    logs.configure("WARNING", "console")
    calm_the_garbage_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work(*arguments))


async def _wait_for_connections(child: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if child.returncode is not None:
                    raise RuntimeError(f"the process ended at once, with {child.returncode}") from None
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        await asyncio.wait_for(child.wait(), STOP_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()
