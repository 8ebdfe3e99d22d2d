"""An event loop in virtual time, in which every order of events follows from a seed.

Time stands still while callbacks run and jumps to the next timer when none is ready; there is no I/O. Callbacks
belong to a `Domain`, one for each thread of each simulated process, found by a context variable that every
task and timer inherits. Which domain runs next is drawn from the seed; within a domain callbacks run in the
order in which they were scheduled, as on a real loop, unless `disorder` has another one go first. A domain can
be frozen, and a dead one is frozen for ever.

Nothing here may depend on addresses: tasks and futures hash by a serial number, so that sets of them iterate
in the same order in every run.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any


class Stuck(Exception):
    """Nothing is ready and no timer is set: the simulation would wait for ever."""


class Domain:
    """One simulated thread."""

    def __init__(self, name: str, *, hands_over_to: Domain | None = None) -> None:
        """What this thread gives to `call_soon_threadsafe` runs in `hands_over_to`."""
        self.name = name
        self.target = hands_over_to or self
        self.ready: deque[asyncio.Handle] = deque()
        self.frozen = False
        self._steps = 0
        self._appointments: list[tuple[int, Callable[[], None]]] = []

    def after_steps(self, steps: int, action: Callable[[], None]) -> None:
        """Do something between two callbacks of this domain: that is, at some `await` of its code."""
        self._appointments.append((self._steps + steps, action))

    def stepped(self) -> None:
        """One more callback has run."""
        self._steps += 1
        due = [action for at, action in self._appointments if at <= self._steps]
        if due:
            self._appointments = [(at, action) for at, action in self._appointments if at > self._steps]
            for action in due:
                action()

    def context(self) -> Context:
        """A context whose tasks belong to this domain."""
        context = copy_context()
        context.run(DOMAIN.set, self)
        return context


WORLD = Domain("world")
"""Where the simulation itself runs: the network, the server, the faults."""

DOMAIN: ContextVar[Domain] = ContextVar("DOMAIN", default=WORLD)


def in_virtual_time(scene: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run it on a loop of its own, whose clock goes on when nothing else does: no second of it is waited for."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(Random(1))) as runner:
        runner.run(scene())


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one callback at a time, chosen by `random`."""

    def __init__(self, random: Random, *, disorder: float = 0.0) -> None:
        super().__init__()
        self._random = random
        self._disorder = disorder
        self._virtual_now = 0.0
        self._domains: dict[Domain, None] = {}
        self._serials = count()
        self.steps = 0
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # generic in the stubs

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._virtual_now

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(next(self._serials), loop=self)

    def call_soon_threadsafe(  # type: ignore[override]  # its stubs tie the arguments to the callback
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Hand over to the thread that runs the loop, whichever simulated thread this is."""
        context = context or copy_context()
        context.run(lambda: DOMAIN.set(DOMAIN.get().target))
        return self.call_soon(callback, *args, context=context)

    def thaw_all(self) -> None:
        """Let every domain run again, the dead ones too."""
        for domain in self._domains:
            domain.frozen = False

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return _Task(next(self._serials), work, loop=loop, **options)

    def _run_once(self) -> None:
        self._sort_in()
        while not (domains := [domain for domain in self._domains if domain.ready and not domain.frozen]):
            self._advance()
            self._sort_in()
        domain = domains[0] if len(domains) == 1 else self._random.choice(domains)
        handle = self._next_of(domain)
        if not handle.cancelled():
            self.steps += 1
            handle._run()
            domain.stepped()

    def _next_of(self, domain: Domain) -> asyncio.Handle:
        if self._disorder and len(domain.ready) > 1 and self._random.random() < self._disorder:
            domain.ready.rotate(-self._random.randrange(len(domain.ready)))
        return domain.ready.popleft()

    def _sort_in(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        while ready:
            handle = ready.popleft()
            domain = handle._context.get(DOMAIN, WORLD)  # type: ignore[attr-defined]
            self._domains.setdefault(domain)
            domain.ready.append(handle)

    def _advance(self) -> None:
        """Jump to the next timer."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck
        self._virtual_now = max(self._virtual_now, timers[0].when())
        while timers and timers[0].when() <= self._virtual_now:
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            if not timer.cancelled():
                self._ready.append(timer)  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        """There is no selector to wake."""


class _Task(asyncio.Task[Any]):
    def __init__(self, serial: int, work: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._serial = serial
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._serial


class _Future(asyncio.Future[Any]):
    def __init__(self, serial: int, **options: Any) -> None:
        self._serial = serial
        super().__init__(**options)

    def __hash__(self) -> int:
        return self._serial
