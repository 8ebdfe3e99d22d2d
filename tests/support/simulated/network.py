"""The way to the server and back, and all that can happen on it.

The server carries out a request in a task of its own: whoever sent it may be cancelled, frozen or dead by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from pymongo import _csot
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    NetworkTimeout,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from simulated.history import History
from simulated.loop import WORLD
from simulated.server import SimulatedServer

T = TypeVar("T")
Undecided = Callable[[], PyMongoError]

SELECTION_PAUSE_SECONDS = 0.2
DRIVER_PATIENCE_SECONDS = 20.0
LATEST_REQUEST_SECONDS = 20.0
"""A request that was given up may still arrive this much later."""

NOT_MAJORITY = {"code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waiting for replication timed out"}

FATES = (
    "request reset",
    "request lost",
    "request late",
    "request given up",
    "answer reset",
    "answer lost",
    "answer late",
    "not majority",
)
"""What can happen to a call: *lost* without a word; *reset*, so that the caller is told at once that there will be
no answer; *late*, perhaps later than the caller waits; *given up*, when the caller is told that and the request
arrives nevertheless, now or later; *not majority*, when the server could not have a write acknowledged in time."""


@dataclass(slots=True)
class Weather:
    """How the network is, for everybody. `fault` is the share of calls that something happens to."""

    latency_seconds: float = 0.002
    fault: float = 0.0


class Link:
    """One client's connection to the server."""

    def __init__(
        self,
        process: str,
        name: str,
        server: SimulatedServer,
        weather: Weather,
        *,
        random: Random,
        history: History,
        patience: float = DRIVER_PATIENCE_SECONDS,
    ) -> None:
        """`patience` is how long a call may take that does not say so itself."""
        self.process = process
        self.name = name
        self._server = server
        self._weather = weather
        self._random = random
        self._history = history
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self.cut = False
        self.silent = False
        """Cut in the way that nobody is told."""
        self.closed = False
        self.disturbed_at = self._loop.time()
        """When something last happened to this link that did not happen to all."""

    @property
    def open(self) -> bool:
        """Whether anything gets through."""
        return not (self.cut or self.closed or self._server.away)

    def reset(self) -> None:
        """Whoever waits for an answer learns that there will be none."""
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(AutoReconnect("connection closed"))

    async def call(self, what: str, statement: Callable[[], Awaitable[T]], *, undecided: Undecided | None) -> T:
        """Send a request and wait for its answer. Raises the driver's errors.

        `undecided` makes the error for a write that a majority did not acknowledge in time; reads have none."""
        deadline = self._loop.time() + (_csot.get_timeout() or self._patience)
        await self._until_open(deadline)
        fate = self._fate(what, is_write=undecided is not None)
        answer: asyncio.Future[T] = self._loop.create_future()
        self._waiting[answer] = None
        request = _Request(
            statement=statement,
            answer=answer,
            fate=fate,
            undecided=undecided,
            patience=deadline - self._loop.time(),
        )
        serving = self._loop.create_task(self._serve(request), context=WORLD.context())
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            raise NetworkTimeout("no answer in time") from None
        finally:
            del self._waiting[answer]

    async def _until_open(self, deadline: float) -> None:
        while self.closed or not (self.open or self.silent):
            left = deadline - self._loop.time()
            if self.closed or left <= 0:
                raise ServerSelectionTimeoutError("no server could be reached")
            await asyncio.sleep(min(left, SELECTION_PAUSE_SECONDS))

    def _fate(self, what: str, *, is_write: bool) -> str | None:
        if self._random.random() >= self._weather.fault:
            return None
        fate = self._random.choice(FATES if is_write else FATES[:-1])
        self.disturbed_at = self._loop.time()
        self._history.add(self.process, "fault", link=self.name, call=what, fate=fate)
        return fate

    async def _serve(self, request: _Request) -> None:
        fate = request.fate
        if fate == "request given up":
            request.lose(told=True)
        late = fate in ("request late", "request given up")
        await asyncio.sleep(self._delay() + (self._lateness(request.patience) if late else 0))
        # What was sent before its sender died arrives nevertheless.
        if self.cut or self._server.away or fate in ("request reset", "request lost"):
            return request.lose(told=fate == "request reset")
        result = await request.result()
        await asyncio.sleep(self._delay() + (request.patience * self._random.random() if fate == "answer late" else 0))
        if not self.open or fate in ("answer reset", "answer lost"):
            return request.lose(told=fate == "answer reset")
        request.deliver(result)

    def _lateness(self, patience: float) -> float:
        # A little, within the sender's patience, or after the sender has given up.
        beyond = patience + self._random.random() * LATEST_REQUEST_SECONDS
        return self._random.choice([self._random.random() * 0.1, self._random.random() * patience, beyond])

    def _delay(self) -> float:
        return self._random.expovariate(1 / self._weather.latency_seconds)


@dataclass(eq=False, slots=True, kw_only=True)
class _Request:
    """One request, and who waits for its answer."""

    statement: Callable[[], Awaitable[Any]]
    answer: asyncio.Future[Any]
    fate: str | None
    undecided: Undecided | None
    patience: float

    async def result(self) -> Any:
        """Have the server carry it out; its errors are results too."""
        try:
            result = await self.statement()
        except PyMongoError as error:
            result = error
        if self.fate != "not majority" or self.undecided is None:
            return result
        if isinstance(result, BulkWriteError):
            return BulkWriteError(dict(result.details) | {"writeConcernErrors": [NOT_MAJORITY]})
        return result if isinstance(result, PyMongoError) else self.undecided()

    def lose(self, *, told: bool) -> None:
        """There will be no answer; `told` is whether the sender learns of it at once."""
        if told:
            self.deliver(AutoReconnect("connection closed"))

    def deliver(self, result: Any) -> None:
        """Hand the answer over, if somebody still waits."""
        if self.answer.done():
            return
        if isinstance(result, PyMongoError):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


def statement_undecided() -> PyMongoError:
    """What the driver raises when a single statement was not acknowledged by a majority in time."""
    return WriteConcernError("waiting for replication timed out", 64, NOT_MAJORITY)


def bulk_undecided() -> PyMongoError:
    """The same for a bulk write."""
    return BulkWriteError({"writeErrors": [], "writeConcernErrors": [NOT_MAJORITY]})
