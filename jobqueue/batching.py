"""Group commit: many callers, few writes. Reads of single documents go together in the same way.

A caller submits one item and awaits its own answer. Nothing in flight: the item goes at once, together with
whatever else is submitted in the same turn of the event loop. A batch in flight: the next one collects. Only
full batches go beside one that is under way, so that one slow write does not hold everybody (an election takes
seconds) and a fast store is not sent crumbs. Of many that come after a quiet time a few may go ahead: whoever waits for
them can begin while the rest is written.

Who need not wait for what is under way takes `EachTurn`: together is only what is submitted in one turn of the loop.

Promises: every item that was taken gets exactly one answer; a caller who is cancelled or gives up waiting
changes nothing for the others; what waits is bounded in number and bytes. Knows nothing of MongoDB.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from jobqueue.errors import JobQueueError, QueueFull, ShuttingDown

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Task = asyncio.Task[Sequence[Answer | BaseException]]
_Told = tuple[Answer | BaseException, TracebackType | None]
"""An answer and, where it is an error, its traceback before any of its callers raised it."""

QUIET_SECONDS = 0.1
"""Without a batch for so long, the next one is the first of a burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much goes into one batch, how many batches are in flight, and how much may wait for its turn. While fewer
    than `eager` are in flight the next goes at once, however small it is. After a quiet time at most `first` go ahead
    of the others."""

    items: int = 1_000
    bytes: int = 8 << 20
    first: int | None = None
    eager: int = 1
    in_flight: int = 3
    waiting_items: int = 50_000
    waiting_bytes: int = 64 << 20


@dataclass(eq=False, slots=True)
class _Caller(Generic[Answer]):
    """Who waits for the answers to what was submitted together: one future, however many items there are.

    Errors are held as values: one whose caller is gone must not be reported as "never retrieved"."""

    answers: list[Answer | BaseException]
    missing: int
    woken: asyncio.Future[None]
    numbers: range
    """Those of its items in the line."""
    traceback: TracebackType | None = None
    """Where the last of them that is an error was raised, before any caller raises it too."""

    def take(self, place: int, answer: Answer | BaseException) -> None:
        """The answer to one of the items."""
        if isinstance(answer, BaseException):
            self.traceback = answer.__traceback__
        self.answers[place] = answer
        self.missing -= 1
        if not self.missing:
            self.wake()

    def wake(self) -> None:
        """Wait no more."""
        # Done already: the caller was cancelled, or its time was over.
        if not self.woken.done():
            self.woken.set_result(None)


class _Entry(NamedTuple, Generic[Item, Answer]):
    """One item in the line, and where its answer belongs."""

    item: Item
    size: int
    caller: _Caller[Answer]
    place: int


class Undelivered(Exception):
    """The time of one caller was over. `sent` tells whether the item may have been written."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("sent, not answered" if sent else "not sent")
        self.sent = sent


SENT = Undelivered(sent=True)


class GroupCommit(Generic[Item, Answer]):
    """Collects items into batches and hands each batch to `flush`, which returns one answer per item, in order.

    An answer that is an exception is raised to the caller it belongs to."""

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Coroutine[Any, Any, Sequence[Answer | BaseException]]],
        *,
        name: str,
        limits: BatchLimits = BatchLimits(),
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._flush = flush
        self._name = name
        self._limits = limits
        # By number, so that whoever gives up is taken out at once, however many others wait.
        self._line: OrderedDict[int, _Entry[Item, Answer]] = OrderedDict()
        self._line_bytes = 0
        self._next_number = 0
        self._in_flight: set[Task[Answer]] = set()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._answered_at = float("-inf")
        self._scheduled = False
        self._closed = False

    async def submit(self, item: Item, *, size: int) -> Answer:
        """Answer for one item of `size` bytes. Raises what `flush` answered, `QueueFull`, `ShuttingDown`."""
        caller = await self._wait([(item, size)])
        [answer] = caller.answers
        if isinstance(answer, BaseException):
            try:
                # It may be the answer of many: as raised by a future, without the frames of those who raised it before.
                raise answer.with_traceback(caller.traceback)
            finally:
                # Its traceback holds this frame, which must not hold it, or all that its callers have (the bodies of
                # requests) would stay until the garbage collector comes, which it seldom does.
                del answer, caller
        return answer

    async def submit_all(
        self, items: Sequence[tuple[Item, int]], *, seconds: float | None = None
    ) -> Sequence[Answer | BaseException]:
        """Answers for many items, each with its size, in their order. What `submit` would raise is an answer here,
        and so is `Undelivered`, for those that have none after `seconds`."""
        if not items:
            return []
        caller = await self._wait(items, seconds)
        # Of those that were sent, answers may come yet.
        return caller.answers if not caller.missing else caller.answers.copy()

    async def aclose(self) -> None:
        """Take nothing more, and return when everything that was taken is answered."""
        self._closed = True
        while self._line or self._in_flight:
            self._send_what_may_go()
            await asyncio.wait(self._in_flight)

    async def _wait(self, items: Sequence[tuple[Item, int]], seconds: float | None = None) -> _Caller[Answer]:
        loop = asyncio.get_running_loop()
        caller = self._line_up(items, loop.create_future())
        timer = loop.call_later(seconds, caller.wake) if seconds is not None else None
        try:
            await caller.woken
        finally:
            if timer is not None:
                timer.cancel()
        if caller.missing:
            self._withdraw(caller)
        return caller

    def _line_up(self, items: Sequence[tuple[Item, int]], woken: asyncio.Future[None]) -> _Caller[Answer]:
        numbers = range(self._next_number, self._next_number + len(items))
        self._next_number = numbers.stop
        caller: _Caller[Answer] = _Caller([SENT] * len(items), len(items), woken, numbers)
        for place, (item, size) in enumerate(items):
            room = (
                len(self._line) < self._limits.waiting_items and self._line_bytes + size <= self._limits.waiting_bytes
            )
            if room and not self._closed:
                self._line[numbers[place]] = _Entry(item, size, caller, place)
                self._line_bytes += size
            else:
                caller.take(place, self._refusal())
        if not self._scheduled:
            self._schedule()
        return caller

    def _refusal(self) -> JobQueueError:
        return ShuttingDown() if self._closed else QueueFull(f"too many {self._name} are waiting to be written")

    def _withdraw(self, caller: _Caller[Answer]) -> None:
        """Take back what was not sent yet."""
        for number in caller.numbers:
            if (entry := self._line.pop(number, None)) is not None:
                self._line_bytes -= entry.size
                caller.answers[entry.place] = Undelivered(sent=False)

    def _schedule(self) -> None:
        # One turn later, so that everything submitted in this turn of the loop goes together.
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._send_what_may_go)

    def _send_what_may_go(self) -> None:
        self._scheduled = False
        while self._line and self._may_send():
            self._send(self._next_batch())

    def _may_send(self) -> bool:
        if len(self._in_flight) < self._limits.eager:
            return True
        full = len(self._line) >= self._limits.items or self._line_bytes >= self._limits.bytes
        return full and len(self._in_flight) < self._limits.in_flight

    def _next_batch(self) -> list[_Entry[Item, Answer]]:
        batch: list[_Entry[Item, Answer]] = []
        size, most = 0, self._limits.items
        if self._limits.first is not None and self._is_quiet():
            most = self._limits.first
        while self._line and len(batch) < most:
            number, entry = self._line.popitem(last=False)
            if batch and size + entry.size > self._limits.bytes:
                self._line[number] = entry
                self._line.move_to_end(number, last=False)
                break
            self._line_bytes -= entry.size
            size += entry.size
            batch.append(entry)
        return batch

    def _is_quiet(self) -> bool:
        return not self._in_flight and self._clock() - self._answered_at > QUIET_SECONDS

    def _send(self, batch: list[_Entry[Item, Answer]]) -> None:
        work = self._flush([entry.item for entry in batch])
        task = asyncio.create_task(work, name=f"group commit of {self._name}")
        self._in_flight.add(task)
        task.add_done_callback(lambda done: self._finished(done, batch))

    def _finished(self, task: Task[Answer], batch: list[_Entry[Item, Answer]]) -> None:
        self._in_flight.discard(task)
        self._answered_at = self._clock()
        # Before anybody is answered: the store works on the next ones while these callers go on.
        self._send_what_may_go()
        for entry, answer in zip(batch, _answers_of(task, len(batch)), strict=True):
            entry.caller.take(entry.place, answer)


class EachTurn(Generic[Item, Answer]):
    """Hands what is submitted in one turn of the event loop to `flush` together. Nothing waits for a batch under way:
    there is no line, and a caller costs a quarter of what it does in `GroupCommit`."""

    def __init__(
        self, flush: Callable[[Sequence[Item]], Coroutine[Any, Any, Sequence[Answer | BaseException]]], *, name: str
    ) -> None:
        self._flush = flush
        self._name = name
        self._submitted: list[tuple[Item, asyncio.Future[_Told[Answer]]]] = []
        self._in_flight: set[Task[Answer]] = set()
        self._closed = False

    async def submit(self, item: Item) -> Answer:
        """Answer for one item. Raises what `flush` answered, `ShuttingDown`."""
        if self._closed:
            raise ShuttingDown
        loop = asyncio.get_running_loop()
        if not self._submitted:
            loop.call_soon(self._send)
        told: asyncio.Future[_Told[Answer]] = loop.create_future()
        self._submitted.append((item, told))
        answer, traceback = await told
        if isinstance(answer, BaseException):
            try:
                raise answer.with_traceback(traceback)
            finally:
                del answer, traceback, told  # as in `GroupCommit.submit`
        return answer

    async def aclose(self) -> None:
        """Take nothing more, and return when everything that was taken is answered."""
        self._closed = True
        while self._submitted or self._in_flight:
            self._send()
            await asyncio.wait(self._in_flight)

    def _send(self) -> None:
        if submitted := self._submitted:
            self._submitted = []
            work = self._flush([item for item, _ in submitted])
            task = asyncio.create_task(work, name=f"each turn's {self._name}")
            self._in_flight.add(task)
            task.add_done_callback(lambda done: self._finished(done, [told for _, told in submitted]))

    def _finished(self, task: Task[Answer], told: Sequence[asyncio.Future[_Told[Answer]]]) -> None:
        self._in_flight.discard(task)
        for each, answer in zip(told, _answers_of(task, len(told)), strict=True):
            if not each.done():  # else its caller was cancelled
                each.set_result((answer, answer.__traceback__ if isinstance(answer, BaseException) else None))


def _answers_of(task: Task[Answer], count: int) -> Sequence[Answer | BaseException]:
    # A flush that broke still owes every caller an answer: nobody waits for ever.
    if task.cancelled():
        return [asyncio.CancelledError()] * count
    if error := task.exception():
        return [error] * count
    answers = task.result()
    return answers if len(answers) == count else [RuntimeError("the batch ended without an answer for each")] * count
