"""The event loop of a process: which one, the signals that stop what runs in it, and what its tasks have in common."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import closing
from typing import Any, TextIO

from jobqueue.forks import keep_stop_signals

EXIT_AT_ONCE = 130
ENDING_SECONDS = 1.0
"""For what was cancelled, to end."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed; it exists for most systems, not for all."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def on_stop_signals(stop: Callable[[], object], *, at_once: Callable[[], object] = lambda: None) -> None:
    """From now on `stop` is called for the first SIGINT or SIGTERM; for the next one `at_once`, and the process ends.

    Called in the running event loop, as both are."""
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked:
            at_once()
            os._exit(EXIT_AT_ONCE)
        asked = True
        stop()

    keep_stop_signals()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


def open_standard_streams() -> None:
    """Let nothing else get the number of a standard stream that was closed before the start: uvloop aborts the process
    when it finds a socket of its own there, and C code would print into that socket."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def run_to_the_end(main: Coroutine[Any, Any, int]) -> int:
    """Run this in an event loop of its own; returns its exit code.

    Some coroutine of a task may catch its cancellation and go on. `asyncio.Runner` would wait for it for ever; here the
    process ends all the same, and what tasks began by multiprocessing with it."""
    # Closed where Ctrl-C comes before it begins, or Python would complain that nobody awaited it.
    with closing(main), asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(main)
        going_on = runner.run(_end_all())
        _end_processes()
        _flush(sys.stdout)
        _flush(sys.stderr)
        if going_on:
            os._exit(code)
    return code


def _end_processes() -> None:
    """Those that tasks began by multiprocessing and left: Python would wait for them at its end, however long."""
    for process in multiprocessing.active_children():
        process.terminate()


def _flush(stream: TextIO | None) -> None:
    """Write what waits to be, or give it up: Python would try once more at its end, and then exit with 120."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


async def _end_all() -> Collection[asyncio.Task[Any]]:
    return await end(asyncio.all_tasks() - {asyncio.current_task()})


async def end(tasks: Collection[asyncio.Task[Any]]) -> Collection[asyncio.Task[Any]]:
    """Cancel these, and return those that go on nevertheless."""
    for task in tasks:
        task.cancel()
    return (await asyncio.wait(tasks, timeout=ENDING_SECONDS))[1] if tasks else ()


def take_note(task: asyncio.Task[Any]) -> None:
    """For a task whose error is seen by whoever waits for it, if anybody still does: or asyncio would complain that
    nobody took it."""
    if not task.cancelled():
        task.exception()


def is_being_cancelled() -> bool:
    """Whether the current task is asked to end, so that a `CancelledError` in it is its own, not one from elsewhere."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def task_of_this_step() -> asyncio.Task[Any] | None:
    """The task that runs right now. None outside of an event loop, where a coroutine that nobody wants is closed."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
