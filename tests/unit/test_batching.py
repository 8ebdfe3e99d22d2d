"""Group commit: who waits for whom, what goes together, and that everybody gets an answer."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from counted_calls import calls_until
from hand_clock import HandClock
from observers import settle

from jobqueue.batching import QUIET_SECONDS, BatchLimits, EachTurn, GroupCommit, Undelivered
from jobqueue.errors import QueueFull, ShuttingDown


class Store:
    """Answers each batch when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self._gates: list[asyncio.Future[None]] = []
        self.arrived = asyncio.Event()

    async def flush(self, batch: Sequence[str]) -> Sequence[str | BaseException]:
        self.batches.append(list(batch))
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        self.arrived.set()
        await gate
        return [ValueError(item) if item.startswith("bad") else item.upper() for item in batch]

    def answer(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self._gates[number].set_result(None)
        else:
            self._gates[number].set_exception(error)

    async def batch(self, number: int) -> list[str]:
        """Wait until so many batches have arrived."""
        async with asyncio.timeout(5):
            while len(self.batches) <= number:
                self.arrived.clear()
                await self.arrived.wait()
        return self.batches[number]


@pytest.fixture
async def store() -> Store:
    return Store()


def commit(store: Store, **limits: int) -> GroupCommit[str, str]:
    return GroupCommit(store.flush, name="items", limits=BatchLimits(**limits))


def each_turn(store: Store) -> EachTurn[str, str]:
    return EachTurn(store.flush, name="items")


Group = GroupCommit[str, str] | EachTurn[str, str]
each_kind = pytest.mark.parametrize("make", [commit, each_turn])


async def burst(group: GroupCommit[str, str], store: Store, *items: str) -> list[list[str]]:
    """The batches that these items make, submitted together."""
    before = len(store.batches)
    answers = asyncio.create_task(group.submit_all(items, [1] * len(items)))
    answered = before
    while not answers.done():
        await store.batch(answered)
        store.answer(answered)
        answered += 1
        await settle()
    return store.batches[before:]


async def test_after_a_quiet_time_the_first_of_many_go_ahead(store: Store) -> None:
    clock = HandClock()
    group = GroupCommit[str, str](store.flush, name="items", limits=BatchLimits(first=2), clock=clock.monotonic)

    assert await burst(group, store, "a", "b", "c", "d", "e") == [["a", "b"], ["c", "d", "e"]]

    clock.seconds += QUIET_SECONDS / 2
    assert await burst(group, store, "f", "g", "h") == [["f", "g", "h"]]

    clock.seconds += 2 * QUIET_SECONDS
    assert await burst(group, store, "i", "j", "k") == [["i", "j"], ["k"]]


async def test_a_batch_that_took_long_leaves_no_quiet_time_behind(store: Store) -> None:
    clock = HandClock()
    group = GroupCommit[str, str](store.flush, name="items", limits=BatchLimits(first=2), clock=clock.monotonic)
    [waiting] = submit(group, "slow")
    await store.batch(0)
    clock.seconds += 10 * QUIET_SECONDS
    store.answer(0)
    await waiting

    assert await burst(group, store, "a", "b", "c") == [["a", "b", "c"]]


async def test_beside_a_batch_that_takes_long_nobody_goes_ahead(store: Store) -> None:
    clock = HandClock()
    limits = BatchLimits(items=3, first=1)
    group = GroupCommit[str, str](store.flush, name="items", limits=limits, clock=clock.monotonic)
    slow = submit(group, "slow")
    await store.batch(0)
    clock.seconds += 10 * QUIET_SECONDS

    full = submit(group, "a", "b", "c")

    assert await store.batch(1) == ["a", "b", "c"]
    for number in range(2):
        store.answer(number)
    await asyncio.gather(*slow, *full)


def ask(group: Group, item: str, *, size: int = 1) -> Coroutine[Any, Any, str]:
    return group.submit(item) if isinstance(group, EachTurn) else group.submit(item, size=size)


def submit(group: Group, *items: str, size: int = 1) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(ask(group, item, size=size)) for item in items]


@each_kind
async def test_what_is_submitted_in_one_turn_goes_together_and_at_once(
    store: Store, make: Callable[[Store], Group]
) -> None:
    tasks = submit(make(store), "a", "b", "c")

    assert await store.batch(0) == ["a", "b", "c"]

    store.answer(0)
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]


async def test_while_a_batch_is_in_flight_the_next_collects(store: Store) -> None:
    group = commit(store)
    first = submit(group, "a")
    await store.batch(0)
    second = submit(group, "b")
    await settle()
    third = submit(group, "c")
    await settle()
    assert store.batches == [["a"]]

    store.answer(0)

    assert await store.batch(1) == ["b", "c"]
    store.answer(1)
    assert await asyncio.gather(*first, *second, *third) == ["A", "B", "C"]


async def test_the_next_batch_is_with_the_store_before_the_callers_of_the_last_go_on(store: Store) -> None:
    group = commit(store)
    seen: list[list[list[str]]] = []

    async def look() -> None:
        await group.submit("a", size=1)
        seen.append(list(store.batches))

    first = asyncio.create_task(look())
    await store.batch(0)
    second = submit(group, "b")
    await settle()

    store.answer(0)
    await first

    assert seen == [[["a"], ["b"]]]
    store.answer(1)
    await asyncio.gather(*second)


async def test_only_full_batches_go_beside_one_in_flight_and_not_more_than_allowed(store: Store) -> None:
    group = commit(store, items=2, in_flight=3)
    tasks = submit(group, "a")
    await store.batch(0)

    tasks += submit(group, "b", "c", "d", "e", "f", "g", "h")
    await settle()

    assert store.batches == [["a"], ["b", "c"], ["d", "e"]]
    for number, expected in enumerate([["a"], ["b", "c"], ["d", "e"], ["f", "g"], ["h"]]):
        assert await store.batch(number) == expected
        store.answer(number)
    await asyncio.gather(*tasks)


async def test_a_batch_is_full_by_its_bytes_too(store: Store) -> None:
    group = commit(store, bytes=10)
    first = submit(group, "a")
    await store.batch(0)

    rest = submit(group, "b", "c", size=5)

    assert await store.batch(1) == ["b", "c"]
    for number in range(2):
        store.answer(number)
    await asyncio.gather(*first, *rest)


async def test_so_many_batches_as_are_wanted_go_at_once_however_small(store: Store) -> None:
    group = commit(store, eager=2)
    tasks = submit(group, "a")
    await store.batch(0)
    tasks += submit(group, "b")
    await store.batch(1)

    tasks += submit(group, "c", "d")
    await settle()
    assert store.batches == [["a"], ["b"]]

    for number in range(2):
        store.answer(number)
    assert await store.batch(2) == ["c", "d"]
    store.answer(2)
    await asyncio.gather(*tasks)


async def test_a_batch_ends_where_its_bytes_do_and_a_heavy_item_goes_alone(store: Store) -> None:
    group = commit(store, bytes=10)
    tasks = submit(group, "a", "b", size=6) + submit(group, "c", size=99)

    for number, expected in enumerate([["a"], ["b"], ["c"]]):
        assert await store.batch(number) == expected
        store.answer(number)
    await asyncio.gather(*tasks)


@each_kind
async def test_an_error_reaches_only_the_caller_it_belongs_to(store: Store, make: Callable[[Store], Group]) -> None:
    tasks = submit(make(store), "good", "bad one", "good too")
    await store.batch(0)
    store.answer(0)

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert answers[0::2] == ["GOOD", "GOOD TOO"]
    assert isinstance(answers[1], ValueError)


@each_kind
async def test_a_flush_that_breaks_leaves_nobody_waiting(store: Store, make: Callable[[Store], Group]) -> None:
    group = make(store)
    tasks = submit(group, "a", "b")
    await store.batch(0)
    store.answer(0, OSError("broken"))

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in answers] == [OSError, OSError]
    again = submit(group, "c")
    await store.batch(1)
    store.answer(1)
    assert await asyncio.gather(*again) == ["C"]


@pytest.mark.parametrize("kind", [GroupCommit[str, str], EachTurn[str, str]])
async def test_a_flush_that_has_no_answer_for_each_leaves_nobody_waiting(kind: type[Group]) -> None:
    async def flush(batch: Sequence[str]) -> Sequence[str]:
        return batch[1:]

    answers = await asyncio.gather(*submit(kind(flush, name="items"), "a", "b"), return_exceptions=True)

    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError]


@pytest.mark.parametrize("kind", [GroupCommit[str, str], EachTurn[str, str]])
async def test_a_flush_that_is_cancelled_leaves_nobody_waiting(kind: type[Group]) -> None:
    async def flush(batch: Sequence[str]) -> Sequence[str]:
        raise asyncio.CancelledError

    answers = await asyncio.gather(*submit(kind(flush, name="items"), "a", "b"), return_exceptions=True)

    assert [type(answer) for answer in answers] == [asyncio.CancelledError, asyncio.CancelledError]


@each_kind
async def test_who_gets_the_same_error_as_others_does_not_see_their_frames(
    store: Store, make: Callable[[Store], Group]
) -> None:
    callers = submit(make(store), *map(str, range(100)))
    await store.batch(0)
    store.answer(0, ValueError("broken"))

    depths = []
    for caller in callers:
        with pytest.raises(ValueError, match="broken"):
            await caller
        error = caller.exception()
        assert error is not None
        frames = traceback.extract_tb(error.__traceback__)
        assert "flush" in {frame.name for frame in frames}, "it is told where it arose"
        depths.append(len(frames))
    assert max(depths) < 10


class Body:
    """What a caller has while it waits."""


@each_kind
@pytest.mark.usefixtures("no_collector")
async def test_an_error_that_was_raised_leaves_nothing_of_its_caller_to_the_garbage_collector(
    store: Store, make: Callable[[Store], Group]
) -> None:
    group = make(store)
    held: list[weakref.ref[Body]] = []

    async def call() -> None:
        body = Body()
        held.append(weakref.ref(body))
        with contextlib.suppress(ValueError):
            await ask(group, "bad one")

    caller = asyncio.create_task(call())
    await store.batch(0)
    store.answer(0)
    await caller

    assert held[0]() is None


@each_kind
async def test_a_caller_who_is_cancelled_changes_nothing_for_the_others(
    store: Store, make: Callable[[Store], Group]
) -> None:
    tasks = submit(make(store), "a", "b")
    await store.batch(0)

    tasks[0].cancel()
    await settle()
    store.answer(0)

    assert await tasks[1] == "B"
    assert tasks[0].cancelled()


async def test_what_is_too_much_is_refused_by_number_and_by_bytes(store: Store) -> None:
    group = commit(store, waiting_items=2, waiting_bytes=10)
    tasks = submit(group, "a", "b")
    await asyncio.sleep(0)

    with pytest.raises(QueueFull):
        await group.submit("c", size=1)
    await store.batch(0)
    with pytest.raises(QueueFull):
        await group.submit("d", size=11)

    store.answer(0)
    await asyncio.gather(*tasks)


async def test_what_was_written_leaves_room_for_as_many_bytes(store: Store) -> None:
    group = commit(store, waiting_bytes=10)

    for number, item in enumerate(("a", "b")):
        [task] = submit(group, item, size=10)
        await store.batch(number)
        store.answer(number)
        assert await task == item.upper()


async def test_a_callers_time_is_over_and_it_is_told_whether_its_item_was_sent(store: Store) -> None:
    group = commit(store)
    sent = asyncio.create_task(group.submit_all(["a"], [1], seconds=0.01))
    await store.batch(0)
    waiting = asyncio.create_task(group.submit_all(["b"], [1], seconds=0.01))

    answers = [*await sent, *await waiting]

    assert [answer.sent for answer in answers if isinstance(answer, Undelivered)] == [True, False]
    store.answer(0)
    await settle()
    assert store.batches == [["a"]]


async def test_what_comes_after_a_callers_time_changes_nothing_of_what_it_was_told(store: Store) -> None:
    answers = await commit(store).submit_all(["a"], [1], seconds=0.01)
    told = list(answers)

    store.answer(0)
    await settle()

    assert list(answers) == told


@pytest.mark.usefixtures("no_collector")
async def test_no_timer_keeps_what_was_answered_in_time() -> None:
    class Answer:
        pass

    async def flush(batch: Sequence[str]) -> Sequence[Answer]:
        return [Answer() for _ in batch]

    group = GroupCommit[str, Answer](flush, name="items")
    [answer] = await group.submit_all(["a"], [1], seconds=60)
    kept = weakref.ref(answer)

    del answer
    await settle()

    assert kept() is None


async def test_who_gives_up_costs_the_same_however_many_others_wait() -> None:
    async def give_up(number: int) -> None:
        store = Store()
        group = commit(store, items=1)
        answers = await asyncio.gather(*(group.submit_all(["a"], [1], seconds=0.01) for _ in range(number)))
        assert sum(isinstance(answer, Undelivered) and not answer.sent for [answer] in answers) == number - 3
        for sent in range(3):
            store.answer(sent)

    few, many = await calls_until(give_up(500)), await calls_until(give_up(1_000))

    assert many < 3 * few  # twice as many; four times where each is looked for among all


async def test_many_items_of_one_caller_each_get_their_own_answer(store: Store) -> None:
    group = commit(store, waiting_items=3)
    mine = asyncio.create_task(group.submit_all(["a", "bad one", "c", "too much"], [1] * 4, seconds=30))
    await store.batch(0)
    store.answer(0)

    first, bad, third, refused = await mine

    assert (first, third) == ("A", "C")
    assert isinstance(bad, ValueError)
    assert isinstance(refused, QueueFull)


async def test_what_one_caller_brings_is_cut_where_a_batch_is_full_and_the_rest_goes_with_that_of_others(
    store: Store,
) -> None:
    group = commit(store, items=2, bytes=10, in_flight=1)
    tasks = [
        asyncio.create_task(group.submit_all(items, sizes))
        for items, sizes in ((["a", "b", "c"], [1, 1, 1]), (["d", "heavy", "e"], [1, 99, 9]), (["f"], [2]))
    ]

    for number, expected in enumerate([["a", "b"], ["c", "d"], ["heavy"], ["e"], ["f"]]):
        assert await store.batch(number) == expected
        store.answer(number)

    assert [list(await task) for task in tasks] == [["A", "B", "C"], ["D", "HEAVY", "E"], ["F"]]


async def test_who_gives_up_when_a_part_was_sent_is_told_which_and_makes_room(store: Store) -> None:
    group = commit(store, items=2, in_flight=1, waiting_items=3, waiting_bytes=20)

    answers = await group.submit_all(["a", "b", "c"], [1, 1, 10], seconds=0.01)

    assert store.batches == [["a", "b"]]
    assert [answer.sent for answer in answers if isinstance(answer, Undelivered)] == [True, True, False]
    others = asyncio.create_task(group.submit_all(["d", "e", "f", "one too many"], [1, 1, 18, 1]))
    for number, expected in enumerate([["d", "e"], ["f"]], start=1):
        store.answer(number - 1)
        assert await store.batch(number) == expected
    store.answer(2)
    *taken, refused = await others
    assert taken == ["D", "E", "F"]
    assert isinstance(refused, QueueFull)


async def test_closing_waits_for_every_answer_and_takes_nothing_more(store: Store) -> None:
    group = commit(store, items=1)
    tasks = submit(group, "a", "b")
    await store.batch(0)
    closing = asyncio.create_task(group.aclose())
    await settle()
    with pytest.raises(ShuttingDown):
        await group.submit("c", size=1)
    for number in range(2):
        await store.batch(number)
        store.answer(number)

    await closing

    assert await asyncio.gather(*tasks) == ["A", "B"]


async def test_what_is_submitted_in_another_turn_waits_for_no_batch_under_way(store: Store) -> None:
    group = each_turn(store)
    first = submit(group, "a")
    await store.batch(0)

    second = submit(group, "b", "c")
    assert await store.batch(1) == ["b", "c"]

    store.answer(1)
    assert await asyncio.gather(*second) == ["B", "C"]
    assert not first[0].done()
    store.answer(0)
    assert await asyncio.gather(*first) == ["A"]


async def test_closing_sends_what_this_turn_has_and_waits_for_every_answer(store: Store) -> None:
    group = each_turn(store)
    tasks = submit(group, "a")
    await store.batch(0)
    tasks += submit(group, "b")
    closing = asyncio.create_task(group.aclose())
    await store.batch(1)
    with pytest.raises(ShuttingDown):
        await group.submit("c")

    for number in range(2):
        assert not closing.done()
        store.answer(number)
        await settle()
    await closing

    assert await asyncio.gather(*tasks) == ["A", "B"]


@pytest.mark.parametrize("kind", [GroupCommit[str, str], EachTurn[str, str]])
async def test_closing_in_the_turn_of_what_was_submitted_sends_that(kind: type[Group]) -> None:
    async def flush(batch: Sequence[str]) -> Sequence[str]:
        return batch

    group = kind(flush, name="items")
    [task] = submit(group, "a")
    await asyncio.sleep(0)

    await group.aclose()

    assert await task == "a"
