"""How many calls are under way, and what the errors of writes mean: never "it did not happen" where it may have."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from observers import settle
from pymongo.errors import (
    AutoReconnect,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

from jobqueue.mongo.calls import SPARE_THREADS, Calls, TooManyCalls, calls_in_flight, may_have_happened

RETRYABLE: Mapping[str, Any] = {"errorLabels": ["RetryableWriteError"]}


@pytest.mark.parametrize(
    ("error", "doubtful"),
    [
        (AutoReconnect("connection closed"), True),
        (NetworkTimeout("timed out"), True),
        (NotPrimaryError("not primary"), True),
        (WTimeoutError("waiting for replication timed out", 64), True),
        (WriteConcernError("operation was interrupted", 11602), True),
        (WriteConcernError("not enough data-bearing nodes", 100), True),
        (OperationFailure("operation exceeded time limit", 50), True),
        (OperationFailure("primary stepped down", 189), True),
        (OperationFailure("of another kind", 10000, RETRYABLE), True),
        (ServerSelectionTimeoutError("no primary"), False),
        (WaitQueueTimeoutError("no connection for the retry in time"), True),
        (WriteError("Document failed validation", 121), False),
        (OperationFailure("not authorized", 13), False),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "code", "")) if isinstance(value, Exception) else value,
)
def test_a_write_whose_fate_is_not_known_is_doubtful(error: PyMongoError, doubtful: bool) -> None:
    assert may_have_happened(error) is doubtful


async def test_no_more_calls_are_under_way_than_there_is_room_for_and_the_others_follow() -> None:
    calls, begun, may_end = Calls(2), list[int](), asyncio.Event()

    async def call(number: int) -> int:
        begun.append(number)
        await may_end.wait()
        return number

    answers = [asyncio.create_task(calls.attempt(partial(call, number), seconds=30)) for number in range(3)]
    await settle()
    assert begun == [0, 1]

    may_end.set()
    assert await asyncio.gather(*answers) == [0, 1, 2]


async def test_a_call_that_finds_no_room_in_time_has_not_happened() -> None:
    calls, may_end, happened = Calls(1), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(calls.attempt(may_end.wait, seconds=30))
    await settle()

    async def happen() -> None:
        happened.set()

    with pytest.raises(TooManyCalls) as refused:
        await calls.attempt(happen, seconds=0.01)

    assert not happened.is_set()
    assert not may_have_happened(refused.value)
    may_end.set()
    await first


@pytest.mark.parametrize(("threads", "calls"), [("1", 1), ("3", 1), ("10", 8), ("1000", 32)])
def test_calls_leave_some_of_motors_threads_for_the_stream(
    threads: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTOR_MAX_WORKERS", threads)

    assert calls_in_flight() == calls
    assert calls == 1 or calls + SPARE_THREADS <= int(threads)
