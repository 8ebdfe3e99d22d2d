"""How much is done, in calls of functions: clocks are noisy, this is not."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def telling_of_calls(note: Callable[[FrameType, str, object], None]) -> Iterator[None]:
    """`note` is told of each call and return in this thread, as `sys.setprofile` has it, while the block runs."""
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


async def calls_until(done: Awaitable[object]) -> int:
    """How many functions are called, in Python and in C, until this is done."""
    calls = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with telling_of_calls(note):
        await done
    return calls
