"""Calls to the driver: deadlines, a bound on how many are in flight, and what their errors mean.

A cancelled driver call happens nevertheless (Motor runs it in a thread that nothing interrupts), so each call
runs in a task of its own that is never cancelled; callers wait for it behind a shield, and `drain` waits for
all of them. Time-outs are the driver's own (`pymongo.timeout`), which leave its connections in order. A few calls
are awaited in one driver and not in the other: see `settled`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pymongo
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from jobqueue.errors import OutcomeUnknown, Unavailable
from jobqueue.loop import take_note

CLIENT_SECONDS = 8.0
"""For calls that somebody waits for: the answer, or the 503, is there within ten seconds."""

MAINTENANCE_SECONDS = 30.0
INDEX_SECONDS = 600.0

FIRST_PAUSE_SECONDS = 0.05
LAST_PAUSE_SECONDS = 1.0
"""How long a group commit waits before it writes again what got no answer: at first, doubled each time, and at most."""

SPARE_THREADS = 2
"""Left in Motor's executor for the change stream and for closing things."""

HINT_REFUSED = 2
REFUSED_ITEM_CODES = frozenset({2, 9, 14, 15, 22, 52, 57, 121, 10334, 17280})
"""The server cannot store this very document: BadValue, FailedToParse, TypeMismatch, Overflow, InvalidBSON,
field names, validation, too large, key too large."""

UNDECIDED_CODES = frozenset({6, 7, 50, 64, 89, 91, 112, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
"""Time over, no majority heard of, or the primary stepped down: the write may or may not last."""

T = TypeVar("T")


class TooManyCalls(WaitQueueTimeoutError):
    """There was no room for a call in time. The driver's own error says that a retry got no connection in time, and
    says nothing of the attempt before it."""


def calls_in_flight() -> int:
    """How many calls may run at the same time: below the number of Motor's threads, with some to spare."""
    threads = int(os.environ.get("MOTOR_MAX_WORKERS", 5 * (os.cpu_count() or 1)))
    return max(1, min(32, threads - SPARE_THREADS))


class Calls:
    """Runs driver calls in tasks of its own."""

    def __init__(self, in_flight: int) -> None:
        self._room = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, what: str, call: Callable[[], Awaitable[T]], *, seconds: float = CLIENT_SECONDS) -> T:
        """The answer of one call. Raises `Unavailable` when there is none within `seconds`."""
        try:
            return await self.attempt(call, seconds=seconds)
        except PyMongoError as error:
            raise unavailable(what, error) from error

    async def write(self, what: str, job_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """The same for a write of one job. Raises `OutcomeUnknown` when it may have happened, else `Unavailable`."""
        try:
            return await self.attempt(call, seconds=CLIENT_SECONDS)
        except PyMongoError as error:
            if may_have_happened(error):
                raise OutcomeUnknown(job_id, describe(what, error)) from error
            raise unavailable(what, error) from error

    async def attempt(self, call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """The answer of one call, or the driver's own error."""
        task = self.spawn(self.in_this_task(call, seconds=seconds))
        task.add_done_callback(take_note)
        return await asyncio.shield(task)

    async def in_this_task(self, call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """The same within a task that nobody cancels and that is waited for, such as a group commit's."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        await self._find_room(deadline)
        try:
            with pymongo.timeout(max(0.001, deadline - clock())):
                return await call()
        finally:
            self._room.release()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """A task that this object owns and `drain` waits for."""
        task = asyncio.create_task(work, name="driver call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self) -> None:
        """Return when no call is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _find_room(self, deadline: float) -> None:
        if not self._room.locked():
            await self._room.acquire()  # at once, and without a timer
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._room.acquire()
        except TimeoutError:
            raise TooManyCalls("too many calls are under way") from None


async def settled(value: Any) -> Any:
    """What a call gives, whether or not this driver wants it awaited: PyMongo wants that of `aggregate` and `close`,
    Motor of `start_session`."""
    return await value if inspect.isawaitable(value) else value


def may_have_happened(error: PyMongoError) -> bool:
    """Whether a write that ended like this may be there, now or later."""
    if isinstance(error, ServerSelectionTimeoutError | TooManyCalls):
        return False
    if isinstance(error, OperationFailure):
        unacknowledged = isinstance(error, WriteConcernError)  # done, by one server at least; whatever the code
        return unacknowledged or error.code in UNDECIDED_CODES or error.has_error_label("RetryableWriteError")
    return isinstance(error, ConnectionFailure) or error.timeout


def unavailable(what: str, error: PyMongoError) -> Unavailable:
    """The error that callers see for a driver's."""
    return Unavailable(describe(what, error))


def describe(what: str, error: PyMongoError) -> str:
    """One clear sentence. Never the driver's own text, which may quote documents."""
    return f"cannot {what}: {reason_of(error)}"


def reason_of(error: PyMongoError) -> str:
    """The same without what could not be done."""
    if isinstance(error, ServerSelectionTimeoutError):
        return "no MongoDB server could be reached"
    if isinstance(error, WaitQueueTimeoutError):
        return "too many calls to MongoDB are under way"
    if isinstance(error, NetworkTimeout | ExecutionTimeout) or error.timeout:
        return "MongoDB did not answer in time"
    if isinstance(error, AutoReconnect):
        return "the connection to MongoDB was lost"
    if isinstance(error, OperationFailure):
        name = (error.details or {}).get("codeName", "")
        return f"MongoDB refused ({' '.join(str(part) for part in (error.code, name) if part)})"
    return f"MongoDB failed ({type(error).__name__})"
