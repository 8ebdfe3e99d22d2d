"""What is counted beside the jobs: attempts that were put back, and finished jobs that were deleted.

Each process has a counter of its own in `counters`, so that none waits for another: `{_id, at, retried, removed}`.
`retried` is written absolutely (`$max`), so a repeated write changes nothing; `removed` grows with each delete, in
one transaction with it where the server has them. A counter that nobody has written to for `FOLD_AFTER` is folded
into the document `total`: `{_id: "total", n, last, retried, removed}`.

What keeps anything from being counted twice:

1. **A counter is closed before it is folded**, and what its owner writes names it as open. So what the folder reads
   does not change any more; an owner that comes back finds its counter closed, opens a new one under an id that
   was never used, and goes on from what it had sent.
2. **At most one counter is in the total and still there: `last`.** `total` changes only from the version `n` that the
   folder has read, and only after `last` of that version was deleted. The folder reads its counter after `n`; it is
   there and is not `last`, so it is in no version up to `n`, and the write makes sure that there was none since.

Wherever a folder is killed, the next one goes on, and any number of them may be at it. What may get lost is what an
owner had counted, and not written, when it was killed (a second's `retried`), or what it had sent, without an answer,
just when its counter was closed. Without transactions a delete whose process is killed right after it is not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobqueue.clock import Clock, Identifiers
from jobqueue.errors import Unavailable
from jobqueue.job import FINISHED, Status
from jobqueue.mongo.calls import CLIENT_SECONDS
from jobqueue.mongo.documents import whole
from jobqueue.mongo.moves import Filter, Update
from jobqueue.mongo.store import Hint, Store

TOTAL = "total"
FOLD_AFTER = timedelta(minutes=10)
MAX_FOLDED = 100
"""In one go."""

OPEN: Filter = {"closed": {"$exists": False}}
RACES = 3
"""How often a counter is opened anew because it was closed in the same moment."""

WHAT = "count"

Attempt = Callable[[Callable[[], Awaitable[int]]], Awaitable[int]]
"""How a driver's call is made: with which deadline, and which errors."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What all counters say together. Two with the same `version` and `removed` saw no delete in between."""

    version: int
    retried: int
    removed: Mapping[Status, int]

    def is_settled(self, later: Tally) -> bool:
        """Whether nothing was deleted and nothing folded between the two."""
        return (self.version, self.removed) == (later.version, later.removed)


class Counters:
    """The counter of this process, and the sum of all."""

    def __init__(self, store: Store, clock: Clock, identifiers: Identifiers) -> None:
        self._store = store
        self._clock = clock
        self._identifiers = identifiers
        self._turn = asyncio.Lock()
        self._removing = asyncio.Lock()
        self._id: str | None = None
        self._retried = 0
        self._sent = 0
        self._written = 0

    def count_retried(self, attempts: int) -> None:
        """So many attempts were put back."""
        self._retried += attempts

    async def save(self) -> None:
        """Write what was counted since the last time. Raises `Unavailable`; then it is written the next time."""
        async with self._turn:
            for _ in range(RACES):
                if self._retried == self._written or await self._save(await self._opened()):
                    return
        raise Unavailable("cannot count: the counter is closed again and again")

    async def remove(self, status: Status, delete: Callable[[Hint], Awaitable[int]], *, attempt: Attempt) -> int:
        """Delete jobs that stand in `status`, a finished one, and count them: both or neither where the server has
        transactions. `delete` gets the options of its call and returns how many went; it may be called again when
        all that it did was undone. Returns how many went, raises what `attempt` does."""
        for _ in range(RACES):
            async with self._turn:
                counter = await self._opened()
            try:
                return await self._try_remove(counter, status, delete, attempt)
            except _Closed as closed:
                if not self._store.features.transactions:
                    delete = _done(closed.deleted)
            async with self._turn:
                self._leave(counter)
        raise Unavailable("cannot count: the counter is closed again and again")

    async def read(self) -> Tally:
        """The sum over all counters."""
        documents = await self._find_all()
        total: Mapping[str, Any] = next((one for one in documents if one["_id"] == TOTAL), {})
        # `last` is in the total already.
        counted = [one for one in documents if one["_id"] != total.get("last")]
        return Tally(
            version=whole(total.get("n"), 0),
            retried=sum(whole(one.get("retried"), 0) for one in counted),
            removed={status: sum(_removed(one, status) for one in counted) for status in sorted(FINISHED)},
        )

    async def fold(self) -> int:
        """Add the counters that were silent for `FOLD_AFTER` to the total; returns how many."""
        before = self._clock.now() - FOLD_AFTER
        silent = await self._find_silent(before)
        folded = [await self._fold(one["_id"], before) for one in silent]
        return sum(folded)

    async def _save(self, counter: str) -> bool:
        counted, sent_before = self._retried, self._sent
        # Before it is known whether it arrives: what may have arrived is never counted in another counter.
        self._sent = counted
        if await self._write_retried(counter, counted):
            self._written = counted
            return True
        self._sent = sent_before
        self._leave(counter)
        return False

    async def _opened(self) -> str:
        if self._id is None:
            counter = self._identifiers.token()
            await self._create(counter)
            self._id = counter
        return self._id

    def _leave(self, counter: str) -> None:
        """This counter is closed: go on in another, from what was sent to this one."""
        if self._id == counter:
            self._id = None
            self._retried -= self._sent
            self._sent = self._written = 0

    async def _try_remove(
        self, counter: str, status: Status, delete: Callable[[Hint], Awaitable[int]], attempt: Attempt
    ) -> int:
        async def delete_and_count(options: Hint) -> int:
            return await self._delete_and_count(counter, status, delete, options)

        async with self._alone():
            return await attempt(lambda: self._store.together(delete_and_count))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One delete after the other: of two transactions that write to the same counter the server undoes one."""
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                await self._removing.acquire()
        except TimeoutError:
            raise Unavailable("cannot count: too many deletes are under way") from None
        try:
            yield
        finally:
            self._removing.release()

    async def _delete_and_count(
        self, counter: str, status: Status, delete: Callable[[Hint], Awaitable[int]], options: Hint
    ) -> int:
        deleted = await delete(options)
        if deleted and not await self._add_removed(counter, status, deleted, options):
            raise _Closed(deleted)
        return deleted

    async def _fold(self, counter: str, before: datetime) -> bool:
        total = await self._read_total()
        last = total.get("last")
        if last is not None:
            await self._delete(last)
        if counter == last or not await self._close(counter, before):
            return False
        document = await self._find_one(counter)
        if document is None or not await self._add_to_total(total, document):
            return False
        await self._delete(counter)
        return True

    async def _read_total(self) -> Mapping[str, Any]:
        # counters: the total, made where there is none
        found = await self._find_one(TOTAL)
        if found is None:
            await self._update({"_id": TOTAL}, {"$setOnInsert": {"n": 0}}, upsert=True)
            found = await self._find_one(TOTAL)
        return found or {}

    async def _create(self, counter: str) -> None:
        # counters: a new one, at zero
        await self._update({"_id": counter}, {"$setOnInsert": {"at": self._clock.now(), "retried": 0}}, upsert=True)

    async def _write_retried(self, counter: str, retried: int) -> bool:
        # counters: the owner's own, only while it is open
        update = {"$max": {"retried": retried, "at": self._clock.now()}}
        return await self._update({"_id": counter, **OPEN}, update)

    async def _add_removed(self, counter: str, status: Status, deleted: int, options: Hint) -> bool:
        # counters: the owner's own, only while it is open
        update = {"$inc": {f"removed.{status.value}": deleted}, "$max": {"at": self._clock.now()}}
        result = await self._store.counters.update_one({"_id": counter, **OPEN}, update, **options)
        return result.matched_count == 1

    async def _close(self, counter: str, before: datetime) -> bool:
        # counters: closed for its owner, only while it is silent
        return await self._update({"_id": counter, "at": {"$lt": before}}, {"$set": {"closed": True}})

    async def _add_to_total(self, total: Mapping[str, Any], counter: Mapping[str, Any]) -> bool:
        # counters: into the total, only while that is as it was when the counter was read
        removed = {f"removed.{status.value}": _removed(counter, status) for status in sorted(FINISHED)}
        update = {
            "$inc": {"n": 1, "retried": whole(counter.get("retried"), 0), **removed},
            "$set": {"last": counter["_id"]},
        }
        return await self._update({"_id": TOTAL, "n": total.get("n")}, update)

    async def _update(self, query: Filter, update: Update, *, upsert: bool = False) -> bool:
        result = await self._store.calls.run(
            WHAT, lambda: self._store.counters.update_one(query, update, upsert=upsert)
        )
        return result.matched_count == 1

    async def _delete(self, counter: str) -> None:
        # counters: gone, since it is in the total
        await self._store.calls.run(WHAT, lambda: self._store.counters.delete_one({"_id": counter}))

    async def _find_one(self, counter: str) -> Mapping[str, Any] | None:
        # read: one counter
        found: Mapping[str, Any] | None = await self._store.calls.run(
            WHAT, lambda: self._store.counters.find_one({"_id": counter})
        )
        return found

    async def _find_silent(self, before: datetime) -> Sequence[Mapping[str, Any]]:
        # read: counters that nobody has written to for long, a few at a time
        query = {"at": {"$lt": before}}
        return await self._store.calls.run(
            WHAT, lambda: self._store.counters.find(query, {"_id": 1}, limit=MAX_FOLDED).to_list(None)
        )

    async def _find_all(self) -> Sequence[Mapping[str, Any]]:
        # read: all counters; there are as many as processes lately counted something
        return await self._store.calls.run(WHAT, lambda: self._store.counters.find({}).to_list(None))


class _Closed(Exception):
    """The counter is closed; so many jobs were deleted, unless that was undone."""

    def __init__(self, deleted: int) -> None:
        super().__init__(deleted)
        self.deleted = deleted


def _done(deleted: int) -> Callable[[Hint], Awaitable[int]]:
    async def delete(options: Hint) -> int:
        return deleted

    return delete


def _removed(counter: Mapping[str, Any], status: Status) -> int:
    removed = counter.get("removed")
    return whole(removed.get(status.value), 0) if isinstance(removed, Mapping) else 0
