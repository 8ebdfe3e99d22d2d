"""What the supervisor of several processes decides: with processes that do as they are told, and a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from jobqueue.errors import ProcessFailed
from jobqueue.guardian import STEADY_SECONDS
from jobqueue.supervisor import GIVE_UP_AFTER, End, Supervisor

CRASH = End(-SIGKILL)


class Process:
    """A process that comes up and ends when the test says so; asked to stop, it ends with `code`."""

    def __init__(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.code: int | None = 0
        self.asked_to_stop = False
        self.came_up: asyncio.Future[bool] = loop.create_future()
        self.end: asyncio.Future[End] = loop.create_future()

    async def up(self) -> bool:
        return await asyncio.shield(self.came_up)

    async def ended(self) -> End:
        return await asyncio.shield(self.end)

    def stop(self) -> None:
        self.asked_to_stop = True
        if self.code is not None and not self.end.done():
            self.dies(End(self.code))

    def kill(self) -> None:
        self.dies(CRASH)

    def comes_up(self) -> Process:
        self.came_up.set_result(True)
        return self

    def dies(self, end: End = CRASH) -> None:
        if not self.came_up.done():
            self.came_up.set_result(False)
        self.end.set_result(end)


class Machine:
    """Starts processes, and lets delays pass at once unless they are `endless`."""

    def __init__(self) -> None:
        self._started: asyncio.Queue[Process] = asyncio.Queue()
        self.delays: list[float] = []
        self.now = 0.0
        self.endless = False
        self.waiting = asyncio.Event()

    def start(self, number: int) -> Process:
        process = Process(number)
        self._started.put_nowait(process)
        return process

    async def next(self) -> Process:
        """The process that is started next."""
        return await asyncio.wait_for(self._started.get(), 30)

    def nothing_started(self) -> bool:
        return self._started.empty()

    async def wait(self, wish: Coroutine[Any, Any, object], seconds: float) -> object:
        self.delays.append(seconds)
        self.waiting.set()
        if self.endless:
            return await wish
        wish.close()
        self.now += seconds
        raise TimeoutError


@asynccontextmanager
async def supervised(
    machine: Machine, *, count: int = 2, on_up: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Supervisor, asyncio.Task[None]]]:
    supervisor = Supervisor(
        machine.start, numbers=range(1, count + 1), monotonic=lambda: machine.now, wait=machine.wait
    )
    running = asyncio.create_task(supervisor.run(on_up))
    try:
        yield supervisor, running
    finally:
        running.cancel()
        await asyncio.wait([running])


async def all_up(machine: Machine, *, count: int = 2) -> list[Process]:
    first = (await machine.next()).comes_up()
    return [first, *[(await machine.next()).comes_up() for _ in range(count - 1)]]


async def test_the_first_starts_alone_and_the_others_when_it_is_up() -> None:
    machine, up = Machine(), asyncio.Event()
    async with supervised(machine, count=3, on_up=up.set) as (supervisor, running):
        first = await machine.next()
        await asyncio.sleep(0)
        assert machine.nothing_started()

        first.comes_up()
        others = [await machine.next(), await machine.next()]
        assert not up.is_set()
        for other in others:
            other.comes_up()
        await asyncio.wait_for(up.wait(), 30)

        assert [first.number, *(other.number for other in others)] == [1, 2, 3]
        supervisor.stop()
        await running


async def test_what_is_wrong_for_all_is_told_once() -> None:
    machine = Machine()
    async with supervised(machine) as (_, running):
        (await machine.next()).dies(End(1, "MongoDB does not answer"))

        with pytest.raises(ProcessFailed, match=r"^process 1 did not start: MongoDB does not answer$"):
            await running
        assert machine.nothing_started()


async def test_one_that_does_not_start_stops_the_others() -> None:
    machine, up = Machine(), asyncio.Event()
    async with supervised(machine, count=3, on_up=up.set) as (_, running):
        first = (await machine.next()).comes_up()
        second, third = await machine.next(), await machine.next()
        third.comes_up()
        second.dies()

        with pytest.raises(ProcessFailed, match="process 2 did not start: signal 9"):
            await running
        assert (first.asked_to_stop, third.asked_to_stop) == (True, True)
        assert not up.is_set()


async def test_one_that_ends_is_started_again_after_a_delay_that_doubles_until_it_has_run_for_long() -> None:
    machine = Machine()
    async with supervised(machine) as (supervisor, running):
        _, second = await all_up(machine)
        for _ in range(3):
            second.dies()
            second = await machine.next()
            assert second.number == 2
        machine.now += STEADY_SECONDS
        second.dies(End(0))  # whoever ended it, nobody asked the supervisor
        await machine.next()

        assert machine.delays == [0.5, 1.0, 2.0, 0.5]
        supervisor.stop()
        await running


async def test_one_that_goes_on_ending_is_given_up_and_the_others_are_stopped() -> None:
    machine = Machine()
    async with supervised(machine) as (_, running):
        first, second = await all_up(machine)
        for _ in range(GIVE_UP_AFTER - 1):
            second.dies()
            second = await machine.next()
        second.dies(End(1, "no memory"))

        with pytest.raises(ProcessFailed, match=r"process 2 ended 8 times, .* \(no memory\); the others were stopped"):
            await running
        assert first.asked_to_stop
        assert machine.delays == [0.5, 1, 2, 4, 8, 16, 30]


async def test_the_lives_of_two_processes_are_not_added_up() -> None:
    machine = Machine()
    async with supervised(machine) as (supervisor, running):
        processes = {process.number: process for process in await all_up(machine)}
        for _ in range(GIVE_UP_AFTER - 1):
            for number in (1, 2):
                processes[number].dies()
                processes[number] = await machine.next()

        supervisor.stop()
        await running


async def test_stopping_waits_until_all_have_ended() -> None:
    machine = Machine()
    async with supervised(machine) as (supervisor, running):
        first, second = await all_up(machine)
        second.code = None  # it takes its time

        supervisor.stop()
        await asyncio.wait([running], timeout=0)
        assert (first.end.done(), running.done()) == (True, False)
        second.dies(End(0))

        await running


async def test_one_that_waits_to_be_started_again_is_not_when_it_is_time_to_stop() -> None:
    machine = Machine()
    machine.endless = True
    async with supervised(machine) as (supervisor, running):
        _, second = await all_up(machine)
        second.dies()
        await asyncio.wait_for(machine.waiting.wait(), 30)

        supervisor.stop()

        await running
        assert machine.nothing_started()


@pytest.mark.parametrize("when", ["the first starts", "the others start"])
async def test_a_wish_to_stop_during_the_start_is_no_failure_and_nothing_is_announced(when: str) -> None:
    machine, up = Machine(), asyncio.Event()
    async with supervised(machine, on_up=up.set) as (supervisor, running):
        starting = await machine.next()
        if when == "the others start":
            starting.comes_up()
            starting = await machine.next()
        starting.code = -SIGTERM  # nothing handles the signal yet

        supervisor.stop()

        await running
        assert machine.nothing_started()
        assert not up.is_set()


async def test_a_wish_to_stop_between_two_starts_reaches_those_that_are_started_after_it() -> None:
    machine = Machine()
    async with supervised(machine, count=3) as (supervisor, running):
        first = await machine.next()
        first.came_up.add_done_callback(lambda _: supervisor.stop())

        first.comes_up()

        await asyncio.wait_for(running, 30)


async def test_one_that_does_not_stop_in_order_is_told() -> None:
    machine = Machine()
    async with supervised(machine) as (supervisor, running):
        _, second = await all_up(machine)
        second.code = -SIGKILL

        supervisor.stop()

        with pytest.raises(ProcessFailed, match="process 2 did not stop in order: signal 9"):
            await running


async def test_killing_ends_all_at_once() -> None:
    machine = Machine()
    async with supervised(machine) as (supervisor, _):
        first, second = await all_up(machine)

        supervisor.kill()

        assert (first.end.result(), second.end.result()) == (CRASH, CRASH)
