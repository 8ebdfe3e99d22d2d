"""Tasks that leave a witness: one line per attempt in the file that JOBQUEUE_TEST_WITNESS names.

Each line is written by one `write` to a file opened for appending, so that lines of many processes do not mix
and a killed process leaves whole lines.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import time
from contextlib import suppress
from typing import Any

from jobqueue.tasks import TaskContext, task


def witness(context: TaskContext, what: str) -> None:
    line = f"{context.job.id} {context.attempt} {os.getpid()} {what}\n"
    descriptor = os.open(os.environ["JOBQUEUE_TEST_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@task("work")
async def work(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    witness(context, "began")
    await asyncio.sleep(payload.get("seconds", 0))
    witness(context, "ended")
    return {"pid": os.getpid(), "attempt": context.attempt}


@task("hold")
async def hold(context: TaskContext) -> dict[str, Any]:
    """Runs until the test has seen enough: `Witness.let_go`."""
    witness(context, "began")
    while not os.path.exists(os.environ["JOBQUEUE_TEST_LET_GO"]):  # noqa: ASYNC110, ASYNC240 (another process makes it)
        await asyncio.sleep(0.02)
    witness(context, "ended")
    return {"pid": os.getpid(), "attempt": context.attempt}


@task("block")
def block(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    """A plain function, so it runs in a thread."""
    witness(context, "began")
    time.sleep(payload["seconds"])
    witness(context, "ended")
    return {"pid": os.getpid(), "attempt": context.attempt}


@task("block-the-loop")
async def block_the_loop(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    """What nobody should do: blocks the event loop of its process."""
    witness(context, "began")
    time.sleep(payload["seconds"])  # noqa: ASYNC251 (that is the point)
    return {"pid": os.getpid(), "attempt": context.attempt}


@task("stubborn")
async def stubborn(context: TaskContext) -> None:
    """Goes on whatever happens, as code that catches too much does."""
    witness(context, "began")
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@task("leave-a-process")
def leave_a_process(payload: dict[str, Any]) -> dict[str, Any]:
    """What it starts outlives it, and has what is open here: all of it by a fork, what is inheritable by a shell."""
    if payload["by"] == "fork":
        fork = multiprocessing.get_context("fork").Process(
            target=time.sleep, args=(600,), daemon=payload.get("daemon", True)
        )
        fork.start()
        return {"pid": os.getpid(), "left": fork.pid}
    shell = subprocess.Popen(["sleep", "600"], close_fds=False)
    return {"pid": os.getpid(), "left": shell.pid}


@task("end-what-it-forked")
def end_what_it_forked(payload: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    if (fork := os.fork()) == 0:
        try:
            os.write(writing, b"it runs")
            time.sleep(20)
            os._exit(0)
        finally:
            os._exit(1)
    if payload["when"] == "it runs":
        os.read(reading, 1)
    os.kill(fork, payload["signal"])
    return {"exit_code": os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])}


@task("always-fails")
async def always_fails() -> None:
    raise RuntimeError("no luck")
