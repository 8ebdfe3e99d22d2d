"""Group commit: many callers, few writes.

A caller submits one item and awaits its own answer. Nothing in flight: the item goes at once, together with
whatever else is submitted in the same turn of the event loop. A batch in flight: the next one collects. Only
full batches go beside one that is under way, so that one slow write does not hold everybody (an election takes
seconds) and a fast store is not sent crumbs.

Promises: every item that was taken gets exactly one answer; a caller who is cancelled or gives up waiting
changes nothing for the others; what waits is bounded in number and bytes. Knows nothing of MongoDB.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jobqueue.errors import JobQueueError, QueueFull, ShuttingDown

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much goes into one batch, how many batches are in flight, and how much may wait for its turn."""

    items: int = 1_000
    bytes: int = 8 << 20
    in_flight: int = 3
    waiting_items: int = 50_000
    waiting_bytes: int = 64 << 20


@dataclass(eq=False, slots=True)
class _Entry(Generic[Item, Answer]):
    item: Item
    size: int
    # Holds errors as values: one whose caller is gone must not be reported as "never retrieved".
    answer: asyncio.Future[Answer | BaseException]
    sent: bool = field(default=False)


class Undelivered(Exception):
    """The time of one caller was over. `sent` tells whether the item may have been written."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("sent, not answered" if sent else "not sent")
        self.sent = sent


class GroupCommit(Generic[Item, Answer]):
    """Collects items into batches and hands each batch to `flush`, which returns one answer per item, in order.

    An answer that is an exception is raised to the caller it belongs to."""

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | BaseException]]],
        *,
        name: str,
        limits: BatchLimits = BatchLimits(),
    ) -> None:
        self._flush = flush
        self._name = name
        self._limits = limits
        self._line: deque[_Entry[Item, Answer]] = deque()
        self._line_bytes = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._closed = False

    async def submit(self, item: Item, *, size: int) -> Answer:
        """Answer for one item of `size` bytes. Raises what `flush` answered, `QueueFull`, `ShuttingDown`."""
        answer = await self._enqueue(item, size).answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def submit_all(
        self, items: Sequence[tuple[Item, int]], *, seconds: float
    ) -> Sequence[Answer | BaseException]:
        """Answers for many items, each with its size, in their order. What `submit` would raise is an answer here,
        and so is `Undelivered`, for those that have none after `seconds`."""
        entries = [self._entry_or_error(item, size) for item, size in items]
        waiting = [entry.answer for entry in entries if isinstance(entry, _Entry)]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        return [self._answer_of(entry) if isinstance(entry, _Entry) else entry for entry in entries]

    def _entry_or_error(self, item: Item, size: int) -> _Entry[Item, Answer] | JobQueueError:
        try:
            return self._enqueue(item, size)
        except JobQueueError as error:
            return error

    def _answer_of(self, entry: _Entry[Item, Answer]) -> Answer | BaseException:
        if entry.answer.done():
            return entry.answer.result()
        self._withdraw(entry)
        return Undelivered(sent=entry.sent)

    async def aclose(self) -> None:
        """Take nothing more, and return when everything that was taken is answered."""
        self._closed = True
        while self._line or self._in_flight:
            self._send_what_may_go()
            await asyncio.wait(self._in_flight)

    def _enqueue(self, item: Item, size: int) -> _Entry[Item, Answer]:
        if self._closed:
            raise ShuttingDown
        if len(self._line) >= self._limits.waiting_items or self._line_bytes + size > self._limits.waiting_bytes:
            raise QueueFull(f"too many {self._name} are waiting to be written")
        entry = _Entry[Item, Answer](item, size, asyncio.get_running_loop().create_future())
        self._line.append(entry)
        self._line_bytes += size
        self._schedule()
        return entry

    def _withdraw(self, entry: _Entry[Item, Answer]) -> None:
        if not entry.sent:
            self._line.remove(entry)
            self._line_bytes -= entry.size

    def _schedule(self) -> None:
        # One turn later, so that everything submitted in this turn of the loop goes together.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send_what_may_go)

    def _send_what_may_go(self) -> None:
        self._scheduled = False
        while self._line and self._may_send():
            self._send(self._next_batch())

    def _may_send(self) -> bool:
        if not self._in_flight:
            return True
        full = len(self._line) >= self._limits.items or self._line_bytes >= self._limits.bytes
        return full and len(self._in_flight) < self._limits.in_flight

    def _next_batch(self) -> list[_Entry[Item, Answer]]:
        batch: list[_Entry[Item, Answer]] = []
        size = 0
        while self._line and len(batch) < self._limits.items:
            if batch and size + self._line[0].size > self._limits.bytes:
                break
            entry = self._line.popleft()
            self._line_bytes -= entry.size
            size += entry.size
            entry.sent = True
            batch.append(entry)
        return batch

    def _send(self, batch: list[_Entry[Item, Answer]]) -> None:
        task = asyncio.create_task(self._answer(batch), name=f"group commit of {self._name}")
        self._in_flight.add(task)
        task.add_done_callback(lambda done: self._finished(done, batch))

    async def _answer(self, batch: list[_Entry[Item, Answer]]) -> None:
        answers = await self._flush([entry.item for entry in batch])
        for entry, answer in zip(batch, answers, strict=True):
            _settle(entry.answer, answer)

    def _finished(self, task: asyncio.Task[None], batch: list[_Entry[Item, Answer]]) -> None:
        self._in_flight.discard(task)
        # A flush that broke still owes every caller an answer: nobody waits for ever.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for entry in batch:
            _settle(entry.answer, error or RuntimeError("the batch ended without an answer"))
        self._send_what_may_go()


def _settle(future: asyncio.Future[Answer | BaseException], answer: Answer | BaseException) -> None:
    # Done already: it was answered, or its caller was cancelled and nobody waits for it any more.
    if not future.done():
        future.set_result(answer)
