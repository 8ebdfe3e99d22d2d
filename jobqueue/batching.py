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
from itertools import islice
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
class _Caller(Generic[Item, Answer]):
    """Who waits for the answers to what was submitted together: one future, one place in the line, however many items
    there are. They go in their order.

    Errors are held as values: one whose caller is gone must not be reported as "never retrieved"."""

    items: Sequence[Item]
    sizes: Sequence[int]
    taken: int
    """So many of the items, the first ones, were let into the line."""
    answers: list[Answer | BaseException]
    woken: asyncio.Future[None]
    sent: int = 0
    """So many of those have left it."""
    answered: int = 0
    traceback: TracebackType | None = None
    """Where the last answer, if it is an error, was raised, before any caller raises it too."""

    def take(self, place: int, answers: Sequence[Answer | BaseException]) -> None:
        """The answers to the items from this one on."""
        last = answers[-1]
        if isinstance(last, BaseException):
            self.traceback = last.__traceback__
        self.answers[place : place + len(answers)] = answers
        self.answered += len(answers)
        if self.answered == len(self.items):
            self.wake()

    def wake(self) -> None:
        """Wait no more."""
        # Done already: the caller was cancelled, or its time was over.
        if not self.woken.done():
            self.woken.set_result(None)


class _Part(NamedTuple, Generic[Item, Answer]):
    """What one caller has in a batch: its items from `start` to before `stop`."""

    caller: _Caller[Item, Answer]
    start: int
    stop: int


class Undelivered(Exception):
    """The time of one caller was over. `sent` tells whether the item may have been written."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("sent, not answered" if sent else "not sent")
        self.sent = sent


SENT, NOT_SENT = Undelivered(sent=True), Undelivered(sent=False)


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
        # No list, so that whoever gives up is taken out at once, however many others wait.
        self._line: OrderedDict[_Caller[Item, Answer], None] = OrderedDict()
        self._waiting_items = 0
        self._waiting_bytes = 0
        self._in_flight: set[Task[Answer]] = set()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._answered_at = float("-inf")
        self._scheduled = False
        self._closed = False

    async def submit(self, item: Item, *, size: int) -> Answer:
        """Answer for one item of `size` bytes. Raises what `flush` answered, `QueueFull`, `ShuttingDown`."""
        caller = await self._wait([item], [size])
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
        self, items: Sequence[Item], sizes: Sequence[int], *, seconds: float | None = None
    ) -> Sequence[Answer | BaseException]:
        """Answers for many items of so many bytes, in their order. What `submit` would raise is an answer here, and so
        is `Undelivered`, for those that have none after `seconds`. Where there is no room for one of them there is none
        for those after it."""
        if not items:
            return []
        caller = await self._wait(items, sizes, seconds)
        # Of those that were sent, answers may come yet.
        return caller.answers if caller.answered == len(items) else caller.answers.copy()

    async def aclose(self) -> None:
        """Take nothing more, and return when everything that was taken is answered."""
        self._closed = True
        while self._line or self._in_flight:
            self._send_what_may_go()
            await asyncio.wait(self._in_flight)

    async def _wait(
        self, items: Sequence[Item], sizes: Sequence[int], seconds: float | None = None
    ) -> _Caller[Item, Answer]:
        loop = asyncio.get_running_loop()
        caller = self._line_up(items, sizes, loop.create_future())
        timer = loop.call_later(seconds, caller.wake) if seconds is not None else None
        try:
            await caller.woken
        finally:
            if timer is not None:
                timer.cancel()
        if caller in self._line:
            self._withdraw(caller)
        return caller

    def _line_up(
        self, items: Sequence[Item], sizes: Sequence[int], woken: asyncio.Future[None]
    ) -> _Caller[Item, Answer]:
        taken, size = (0, 0) if self._closed else _fitting(sizes, *self._room())
        caller: _Caller[Item, Answer] = _Caller(items, sizes, taken, [SENT] * len(items), woken)
        if taken:
            self._line[caller] = None
            self._waiting_items += taken
            self._waiting_bytes += size
        if refused := len(items) - taken:
            caller.take(taken, [self._refusal()] * refused)
        if not self._scheduled:
            self._schedule()
        return caller

    def _room(self) -> tuple[int, int]:
        """How many more items, and bytes, may wait."""
        limits = self._limits
        return limits.waiting_items - self._waiting_items, limits.waiting_bytes - self._waiting_bytes

    def _refusal(self) -> JobQueueError:
        return ShuttingDown() if self._closed else QueueFull(f"too many {self._name} are waiting to be written")

    def _withdraw(self, caller: _Caller[Item, Answer]) -> None:
        """Take back what was not sent yet."""
        waiting = slice(caller.sent, caller.taken)
        caller.answers[waiting] = [NOT_SENT] * (caller.taken - caller.sent)
        self._leave(caller, caller.taken, sum(caller.sizes[waiting]))

    def _leave(self, caller: _Caller[Item, Answer], stop: int, size: int) -> None:
        """Its items before `stop` wait no more; `size` is the bytes of those that did until now."""
        self._waiting_items -= stop - caller.sent
        self._waiting_bytes -= size
        caller.sent = stop
        if stop == caller.taken:
            del self._line[caller]

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
        full = self._waiting_items >= self._limits.items or self._waiting_bytes >= self._limits.bytes
        return full and len(self._in_flight) < self._limits.in_flight

    def _next_batch(self) -> list[_Part[Item, Answer]]:
        batch: list[_Part[Item, Answer]] = []
        room, room_bytes = self._limits.items, self._limits.bytes
        if self._limits.first is not None and self._is_quiet():
            room = self._limits.first
        while self._line:
            caller = next(iter(self._line))
            count, size = _fitting(caller.sizes[caller.sent : caller.taken], room, room_bytes)
            if not count and not batch:
                count, size = 1, caller.sizes[caller.sent]  # one that is larger than a batch goes by itself
            if not count:
                break
            batch.append(_Part(caller, caller.sent, caller.sent + count))
            self._leave(caller, caller.sent + count, size)
            room, room_bytes = room - count, room_bytes - size
        return batch

    def _is_quiet(self) -> bool:
        return not self._in_flight and self._clock() - self._answered_at > QUIET_SECONDS

    def _send(self, batch: Sequence[_Part[Item, Answer]]) -> None:
        work = self._flush([item for caller, start, stop in batch for item in caller.items[start:stop]])
        task = asyncio.create_task(work, name=f"group commit of {self._name}")
        self._in_flight.add(task)
        task.add_done_callback(lambda done: self._finished(done, batch))

    def _finished(self, task: Task[Answer], batch: Sequence[_Part[Item, Answer]]) -> None:
        self._in_flight.discard(task)
        self._answered_at = self._clock()
        # Before anybody is answered: the store works on the next ones while these callers go on.
        self._send_what_may_go()
        answers = iter(_answers_of(task, sum(stop - start for _, start, stop in batch)))
        for caller, start, stop in batch:
            caller.take(start, list(islice(answers, stop - start)))


def _fitting(sizes: Sequence[int], most: int, most_bytes: int) -> tuple[int, int]:
    """How many of these fit, from the first on, and how many bytes they have together."""
    size = sum(sizes)
    if len(sizes) <= most and size <= most_bytes:
        return len(sizes), size
    count = size = 0
    for each in sizes[:most]:
        if size + each > most_bytes:
            break
        count, size = count + 1, size + each
    return count, size


class EachTurn(Generic[Item, Answer]):
    """Hands what is submitted in one turn of the event loop to `flush` together. Nothing waits for a batch under way:
    there is no line."""

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
