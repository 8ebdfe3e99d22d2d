from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from jobqueue.threads import ThreadRunner


async def eventually(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in a thread and sets no asyncio event
            await asyncio.sleep(0.005)


class Hold:
    """A plain function that says when it has begun and returns when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.let_go.wait(30)
        return "done"


async def test_it_returns_what_the_function_returns_and_runs_it_in_another_thread() -> None:
    threads = ThreadRunner()

    def add(a: int, *, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    total, ident = await threads.run(add, 2, b=3)

    assert total == 5
    assert ident != threading.get_ident()
    threads.close()


async def test_it_raises_what_the_function_raises() -> None:
    threads = ThreadRunner()

    def fail() -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        await threads.run(fail)
    threads.close()


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
async def test_an_exception_that_a_future_could_not_carry_comes_out_and_the_thread_lives_on(
    error: type[BaseException],
) -> None:
    threads = ThreadRunner()

    def fail() -> None:
        raise error("strange")

    # PEP 479: a coroutine that raises StopIteration raises RuntimeError.
    with pytest.raises(RuntimeError if error is StopIteration else error, match=r"strange|StopIteration"):
        await threads.run(fail)
    assert await threads.run(lambda: 1) == 1
    threads.close()


async def test_threads_are_used_again() -> None:
    threads = ThreadRunner()

    idents = {await threads.run(threading.get_ident) for _ in range(20)}

    assert len(idents) == 1
    threads.close()


async def test_as_many_calls_run_at_the_same_time_as_there_are_callers() -> None:
    threads, together = ThreadRunner(), threading.Barrier(8)

    # Nobody passes the barrier before all eight have come.
    await asyncio.gather(*(threads.run(together.wait, 30) for _ in range(8)))

    threads.close()


async def test_the_function_sees_the_context_variables_of_its_caller_and_keeps_its_own_changes() -> None:
    threads, where = ThreadRunner(), contextvars.ContextVar("where", default="nowhere")
    where.set("here")

    def look_and_change() -> str:
        seen = where.get()
        where.set("in the thread")
        return seen

    assert await threads.run(look_and_change) == "here"
    assert where.get() == "here"
    threads.close()


async def test_a_call_whose_caller_was_cancelled_lingers_until_it_returns() -> None:
    returned = asyncio.Event()
    threads, hold = ThreadRunner(on_return=returned.set), Hold()
    caller = asyncio.create_task(threads.run(hold))
    await eventually(hold.begun.is_set)
    seen_at_the_end: list[int] = []
    caller.add_done_callback(lambda _: seen_at_the_end.append(threads.lingering))

    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert seen_at_the_end == [1], "whoever learns that the call is over must see that its thread is not free"
    assert not returned.is_set()
    hold.let_go.set()
    async with asyncio.timeout(30):
        await returned.wait()
    assert threads.lingering == 0
    threads.close()


async def test_a_timeout_does_not_wait_for_the_thread() -> None:
    returned = asyncio.Event()
    threads, hold = ThreadRunner(on_return=returned.set), Hold()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await threads.run(hold)

    assert threads.lingering == 1
    hold.let_go.set()
    async with asyncio.timeout(30):
        await returned.wait()
    threads.close()


async def test_whenever_the_cancellation_comes_no_thread_is_counted_twice_or_forgotten() -> None:
    counts: list[int] = []
    threads = ThreadRunner(on_return=lambda: counts.append(threads.lingering))
    for round_number in range(300):
        caller = asyncio.create_task(threads.run(threading.get_ident))
        for _ in range(round_number % 4):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        counts.append(threads.lingering)

    await eventually(lambda: threads.lingering == 0)
    assert min(counts) >= 0
    threads.close()


async def test_close_ends_the_idle_threads_at_once_and_the_others_when_they_return() -> None:
    threads, hold = ThreadRunner(), Hold()
    thread: list[threading.Thread] = []

    def busy() -> str:
        thread.append(threading.current_thread())
        return hold()

    idle = await threads.run(threading.current_thread)
    await threads.run(threading.get_ident)
    working = asyncio.create_task(threads.run(busy))
    await eventually(hold.begun.is_set)
    threads.close()
    hold.let_go.set()

    assert await working == "done"
    await eventually(lambda: not idle.is_alive() and not thread[0].is_alive())


def test_a_thread_that_never_returns_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
        import asyncio, threading
        from jobqueue.threads import ThreadRunner

        async def main():
            try:
                async with asyncio.timeout(0.05):
                    await ThreadRunner().run(threading.Event().wait)
            except TimeoutError:
                print("left it behind")

        asyncio.run(main())
    """

    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "left it behind\n", "")
