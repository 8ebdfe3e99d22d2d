"""Threads for tasks that are plain functions.

Not a `ThreadPoolExecutor`: that one joins its threads when the process exits, so a task that hangs would hang
the shutdown. These are daemon threads, reused, one for each call under way. A call whose caller was cancelled
goes on, since no thread can be stopped from outside; until it returns it is *lingering*, and whoever counts
slots must count it as taken. So the number of threads is bounded by the slots of the caller.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def _tell_nobody() -> None:
    return


class ThreadRunner:
    """Runs plain functions for coroutines. Belongs to one event loop; all methods are called on it."""

    def __init__(self, *, on_return: Callable[[], None] = _tell_nobody) -> None:
        """`on_return` is called on the event loop whenever a lingering call has returned."""
        self._on_return = on_return
        self._idle: list[_Line] = []
        self._lingering = 0
        self._started = 0
        self._closed = False

    @property
    def lingering(self) -> int:
        """How many calls still run although their callers are gone."""
        return self._lingering

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in a thread, with the context variables of here; return what it returns, raise what it raises.

        When the caller is cancelled this ends at once. The call counts as lingering from before anybody can
        notice that, so a slot is never seen free in between."""
        call: _Call[T] = _Call(partial(function, *args, **kwargs))
        line = self._idle.pop() if self._idle else self._start()
        line.put(call)
        try:
            await call.returned
        except asyncio.CancelledError:
            if not call.over:
                call.abandoned = True
                self._lingering += 1
            raise
        return call.result()

    def close(self) -> None:
        """Let the threads end: the idle ones now, the others when their calls return."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _start(self) -> _Line:
        self._started += 1
        line: _Line = SimpleQueue()
        threading.Thread(target=self._serve, args=(line,), name=f"task-{self._started}", daemon=True).start()
        return line

    def _serve(self, line: _Line) -> None:
        while (call := line.get()) is not None:
            call.execute()
            try:
                call.loop.call_soon_threadsafe(self._finish, call, line)
            except RuntimeError:  # the loop is closed: nobody is left who could want the answer
                return
            del call  # an idle thread must not keep what the last call returned

    def _finish(self, call: _Call[Any], line: _Line) -> None:
        call.over = True
        if self._closed:
            line.put(None)
        else:
            self._idle.append(line)
        if call.abandoned:
            self._lingering -= 1
            self._on_return()
        elif not call.returned.done():
            call.returned.set_result(None)


class _Call(Generic[T]):
    """One call, from the event loop to its thread and back."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.loop = asyncio.get_running_loop()
        self.returned: asyncio.Future[None] = self.loop.create_future()
        self.over = False
        self.abandoned = False
        self._function = function
        self._context = contextvars.copy_context()
        self._value: T
        self._error: BaseException | None = None

    def execute(self) -> None:
        try:
            self._value = self._context.run(self._function)
        except BaseException as error:  # handed over to the caller, SystemExit included; the thread lives on
            self._error = error

    def result(self) -> T:
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # or it would hold the traceback that holds this call


_Line = SimpleQueue[_Call[Any] | None]
"""How work reaches one thread; None ends it."""
