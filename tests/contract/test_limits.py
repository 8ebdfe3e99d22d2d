"""What admission asks: how much waits, and the meters that all processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from bench import SECOND, Bench

from jobqueue.job import Status
from jobqueue.mongo.limits import ONE_BY_ONE


async def test_what_waits_is_pending_or_scheduled(bench: Bench) -> None:
    for status in Status:
        await bench.add(status=status, queue="q")

    assert await bench.jobs.count_waiting(100) == 2
    assert await bench.jobs.count_waiting_in(["q"], 100) == [2]


FEW: Sequence[str] = []
MANY: Sequence[str] = [f"empty-{number}" for number in range(ONE_BY_ONE)]


@pytest.mark.parametrize("others", [FEW, MANY], ids=["few", "many"])
async def test_what_waits_is_counted_for_each_queue(bench: Bench, others: Sequence[str]) -> None:
    for queue in ("a", "a", "b"):
        await bench.add(queue=queue)
    await bench.add(queue="a", status=Status.SCHEDULED, run_at=bench.clock.now() + SECOND)
    await bench.add(queue="b", status=Status.COMPLETED)
    await bench.put(status="pending", queue={"a": 1})

    assert await bench.jobs.count_waiting_in(["c", "a", "b", *others], 100) == [0, 3, 1] + [0] * len(others)
    assert await bench.jobs.count_waiting(100) == 5


@pytest.mark.parametrize("others", [FEW, MANY], ids=["few", "many"])
async def test_counting_ends_at_the_limit(bench: Bench, others: Sequence[str]) -> None:
    for status in (Status.PENDING, Status.PENDING, Status.SCHEDULED, Status.SCHEDULED):
        await bench.add(queue="a", status=status)

    assert [await bench.jobs.count_waiting(limit) for limit in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]
    assert [(await bench.jobs.count_waiting_in(["a", *others], limit))[0] for limit in (1, 3, 5)] == [1, 3, 4]


async def test_a_meter_is_at_nothing_at_first_and_moves_only_from_where_it_was_seen(bench: Bench) -> None:
    assert await bench.jobs.read_meter("m") == 0
    assert await bench.jobs.move_meter("m", seen=0, to=2**53 + 1)
    assert await bench.jobs.read_meter("m") == 2**53 + 1

    assert not await bench.jobs.move_meter("m", seen=0, to=5)
    assert not await bench.jobs.move_meter("m", seen=7, to=5)
    assert await bench.jobs.move_meter("m", seen=2**53 + 1, to=5)

    assert await bench.jobs.read_meter("m") == 5
    assert await bench.jobs.read_meter("another") == 0


@pytest.mark.parametrize("at", [0, 7])
async def test_of_many_who_move_a_meter_at_once_one_wins(bench: Bench, at: int) -> None:
    if at:
        await bench.jobs.move_meter("m", seen=0, to=at)

    moved = await asyncio.gather(*(bench.jobs.move_meter("m", seen=at, to=100 + number) for number in range(10)))

    assert sum(moved) == 1
    assert await bench.jobs.read_meter("m") == 100 + moved.index(True)
