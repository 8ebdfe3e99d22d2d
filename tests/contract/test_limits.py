"""What admission asks: how much waits, and the meters that all processes share."""

from __future__ import annotations

import asyncio

import pytest
from bench import SECOND, Bench

from jobqueue.job import Status


async def test_what_waits_is_pending_or_scheduled(bench: Bench) -> None:
    for status in Status:
        await bench.add(status=status, queue="q")

    assert await bench.jobs.count_waiting(None, 100) == 2


async def test_what_waits_in_one_queue_is_counted_by_itself(bench: Bench) -> None:
    for queue in ("a", "a", "b"):
        await bench.add(queue=queue)
    await bench.add(queue="a", status=Status.SCHEDULED, run_at=bench.clock.now() + SECOND)

    assert await bench.jobs.count_waiting("a", 100) == 3
    assert await bench.jobs.count_waiting("b", 100) == 1
    assert await bench.jobs.count_waiting("c", 100) == 0
    assert await bench.jobs.count_waiting(None, 100) == 4


@pytest.mark.parametrize("queue", [None, "a"])
async def test_counting_ends_at_the_limit(bench: Bench, queue: str | None) -> None:
    for status in (Status.PENDING, Status.PENDING, Status.SCHEDULED, Status.SCHEDULED):
        await bench.add(queue="a", status=status)

    assert [await bench.jobs.count_waiting(queue, limit) for limit in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]


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
