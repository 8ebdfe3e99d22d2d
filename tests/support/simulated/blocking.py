"""Lets synchronous code run in the simulation: where it would block its thread, it suspends a coroutine instead.

The code under test is the thread's own; a greenlet keeps its stack while the answer is on its way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


async def run_blocking(function: Callable[..., T], *args: Any) -> T:
    """Call synchronous code; wherever it calls `wait_for`, this coroutine awaits in its place."""
    runner = greenlet(function)
    runner.gr_context = copy_context()
    waits_for = runner.switch(*args)
    while not runner.dead:
        try:
            answer = await waits_for
        except BaseException as error:  # whatever it is, it belongs to the code that waits
            waits_for = runner.throw(error)
        else:
            waits_for = runner.switch(answer)
    result: T = waits_for
    return result


def wait_for(awaitable: Awaitable[T]) -> T:
    """Block until the answer is there. Only inside of `run_blocking`."""
    parent = getcurrent().parent
    assert parent is not None, "only code called by run_blocking may wait"
    answer: T = parent.switch(awaitable)
    return answer
