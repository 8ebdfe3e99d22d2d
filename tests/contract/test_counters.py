"""Counters under chaos: calls that fail before or after they are carried out, many folders at once, owners that
come back from the dead. Whatever happens, nothing is counted twice; and folding alone loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import pytest
from bench import SECOND
from hand_clock import HandClock
from mongomock_motor import AsyncMongoMockClient

from jobqueue.clock import Identifiers
from jobqueue.errors import Unavailable
from jobqueue.job import FINISHED, Status
from jobqueue.mongo.counters import FOLD_AFTER, Counters, Tally
from jobqueue.mongo.overview import Overview
from jobqueue.mongo.store import Store
from jobqueue.repository import Features


def store_on(client: Any) -> Store:
    """A store on a client of mongomock."""
    return Store(client, "test", features=Features(name="mock", version=""))


class ChaoticCalls:
    """Runs calls in any order, and fails some of them, before or after they are carried out."""

    def __init__(self, random: Random, *, lost_requests: float, lost_answers: float) -> None:
        self._random = random
        self.lost_requests = lost_requests
        self.lost_answers = lost_answers

    async def run(self, what: str, call: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        await self._wait()
        if self._random.random() < self.lost_requests:
            raise Unavailable(what)
        answer = await call()
        await self._wait()
        if self._random.random() < self.lost_answers:
            raise Unavailable(what)
        return answer

    async def _wait(self) -> None:
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)


class World:
    """Several processes on one database, which count and fold at the same time."""

    def __init__(self, seed: int, *, owners_suffer: bool) -> None:
        self.random = Random(seed)
        self.clock = HandClock()
        self._client: Any = AsyncMongoMockClient()
        self._chaos = ChaoticCalls(self.random, lost_requests=0.1, lost_answers=0.15)
        calm = ChaoticCalls(self.random, lost_requests=0.0, lost_answers=0.0)
        self.processes = [
            (self._counters(self._chaos if owners_suffer else calm), self._counters(self._chaos)) for _ in range(3)
        ]
        self.counted = 0

    async def live(self) -> None:
        for _ in range(12):
            await asyncio.gather(*(self._act(owner, folder) for owner, folder in self.processes))

    async def settle(self) -> Tally:
        """Everything written and folded, without further trouble."""
        self._chaos.lost_requests = self._chaos.lost_answers = 0.0
        for owner, _ in self.processes:
            await owner.save()
        self.clock.move(FOLD_AFTER + SECOND)
        await asyncio.gather(*(folder.fold() for _, folder in self.processes))
        return await self.processes[0][0].read()

    def _counters(self, calls: ChaoticCalls) -> Counters:
        store = store_on(self._client)
        store.calls = calls  # type: ignore[assignment]
        return Counters(store, self.clock, Identifiers(Random(self.random.random())))

    async def _act(self, owner: Counters, folder: Counters) -> None:
        try:
            match self.random.choice(["count", "save", "fold", "wait"]):
                case "count":
                    owner.count_retried(1)
                    self.counted += 1
                case "save":
                    await owner.save()
                case "fold":
                    await folder.fold()
                case "wait":
                    self.clock.move(FOLD_AFTER * self.random.random())
        except Unavailable:
            return


@pytest.mark.parametrize("seed", range(150))
async def test_nothing_is_counted_twice_whatever_fails(seed: int) -> None:
    world = World(seed, owners_suffer=True)

    await world.live()

    assert (await world.settle()).retried <= world.counted


@pytest.mark.parametrize("seed", range(150))
async def test_nothing_is_lost_either_where_owners_get_their_answers(seed: int) -> None:
    world = World(seed, owners_suffer=False)

    await world.live()

    assert (await world.settle()).retried == world.counted


async def test_a_counter_that_is_in_the_total_and_still_there_is_counted_once() -> None:
    """As a folder leaves it that is killed between its two last writes."""
    store = store_on(AsyncMongoMockClient())
    await store.counters.insert_many(
        [{"_id": "total", "n": 1, "last": "p", "retried": 5}, {"_id": "p", "closed": True, "retried": 5}]
    )

    assert (await Counters(store, HandClock(), Identifiers()).read()).retried == 5


class DeletingCounters:
    """Says, when it is asked for the second time, that a job was deleted since the first; and so it was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked = 0

    async def save(self) -> None: ...

    async def read(self) -> Tally:
        self._asked += 1
        if self._asked == 2:
            await self._store.jobs.delete_one({"_id": "a"})
        removed: Mapping[Status, int] = dict.fromkeys(sorted(FINISHED), 0) | {Status.COMPLETED: int(self._asked > 1)}
        return Tally(version=0, retried=0, removed=removed)


async def test_a_job_that_is_deleted_while_totals_are_read_is_counted_once() -> None:
    store = store_on(AsyncMongoMockClient())
    await store.jobs.insert_one({"_id": "a", "status": "completed"})

    totals = await Overview(store, DeletingCounters(store), HandClock()).totals()  # type: ignore[arg-type]

    assert totals.processed == 1
