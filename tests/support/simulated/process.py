"""A process of the service in the simulated world: the real engine, put together as `app.py` does it.

Two things differ from a real one. The lease thread is a domain of its own on the same loop, in which the thread's
own `try_beat` runs on a connection that suspends instead of blocking. And the repository is watched: what the
engine asks of it, and what it is told, goes into the history.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from simulated.blocking import run_blocking
from simulated.client import BlockingClient, SimulatedClient
from simulated.history import History
from simulated.loop import Domain, VirtualLoop
from simulated.network import Link, Weather
from simulated.server import BEGINNING, SimulatedServer
from simulated.witness import Witness

from jobqueue.app import Engine
from jobqueue.clock import Identifiers, ServerClock
from jobqueue.errors import JobQueueError, Unavailable
from jobqueue.job import Claim, WorkerId
from jobqueue.leases import BEATS_PER_LEASE
from jobqueue.mongo import MongoJobRepository
from jobqueue.mongo.leases import MongoLeaseStore
from jobqueue.repository import JobRepository
from jobqueue.service import JobService
from jobqueue.settings import Settings
from jobqueue.tasks import Registry

DATABASE = "jobqueue"
FIRST_BEAT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all processes share."""

    loop: VirtualLoop
    server: SimulatedServer
    weather: Weather
    history: History


class SimulatedEngine(Engine):
    """The engine, with a coroutine in the place of its lease thread."""

    beats: Domain
    connect: Callable[[], MongoLeaseStore]

    async def _begin_to_beat(self) -> None:
        self._beats_end, first = asyncio.Event(), asyncio.Event()
        loop, context = asyncio.get_running_loop(), self.beats.context()
        self._beating = loop.create_task(self._beat_until_the_end(first), context=context)
        try:
            async with asyncio.timeout(FIRST_BEAT_SECONDS):
                await first.wait()
        except TimeoutError:
            raise Unavailable("no first beat") from None

    async def _beat_until_the_end(self, first: asyncio.Event) -> None:
        store, pause = self.connect(), self._lease.total_seconds() / BEATS_PER_LEASE
        while not self._beats_end.is_set():
            await run_blocking(self._lease_thread.try_beat, store)
            if self._lease_thread.wait_for_first_beat(0):
                first.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._beats_end.wait()
        await run_blocking(store.close)

    async def _end_beating(self) -> None:
        self._beats_end.set()
        await self._beating


class SimulatedProcess:
    """One process, from its start until it ends or is killed."""

    def __init__(
        self,
        name: str,
        around: Surroundings,
        *,
        settings: Settings,
        registry: Registry,
        workers: bool,
        skew_seconds: float,
        random: Random,
    ) -> None:
        self.name = name
        self.workers = workers
        self.skew_seconds = skew_seconds
        self.main = Domain(name)
        self.beats = Domain(f"{name}/leases", hands_over_to=self.main)
        self.state = "new"
        self._around = around
        self._settings = settings
        self._registry = registry
        self._random = random
        self._stop = asyncio.Event()
        self._grace_seconds = 0.0
        self._beats_disturbed_at = around.loop.time()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._engine: SimulatedEngine | None = None
        self.calls = self._link("calls")
        self.leases = self._link("leases", patience=settings.lease_seconds / 3)

    @property
    def alive(self) -> bool:
        """Neither ended nor killed."""
        return self.state not in ("killed", "ended")

    @property
    def is_struck(self) -> bool:
        """Frozen, in part at least, or cut off."""
        return self.main.frozen or self.beats.frozen or self.calls.cut or self.leases.cut

    @property
    def service(self) -> JobService | None:
        """What clients talk to, while there is somebody to answer."""
        return self._engine.service if self.state == "running" and self._engine is not None else None

    @property
    def engine(self) -> SimulatedEngine | None:
        """The engine, once there is one."""
        return self._engine

    def start(self) -> None:
        """Begin to live."""
        self._note("starts")
        self.state = "starting"
        self.perform(self._live())

    def perform(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in this process."""
        task = self._around.loop.create_task(work, context=self.main.context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self, *, grace_seconds: float) -> None:
        """SIGTERM."""
        if self.alive and not self._stop.is_set():
            self._note("is told to stop", grace_seconds=round(grace_seconds, 3))
            self._grace_seconds = grace_seconds
            self._stop.set()

    def kill(self) -> None:
        """SIGKILL: what was sent is sent; nothing else happens here any more, no `finally` either."""
        if self.alive:
            self._note("is killed")
            self.state = "killed"
            self.calls.closed = self.leases.closed = True
            self.main.frozen = self.beats.frozen = True

    def freeze(self, *, main: bool, beats: bool) -> None:
        """Stop the event loop, the lease thread, or both."""
        if self.alive:
            self._note("freezes", main=main, beats=beats)
            self.main.frozen = self.main.frozen or main
            self.beats.frozen = self.beats.frozen or beats

    def thaw(self) -> None:
        """Go on, with everything that should have happened meanwhile."""
        if self.alive and (self.main.frozen or self.beats.frozen):
            self._note("thaws")
            self._beats_disturbed_at = self._around.loop.time()
            self.main.frozen = self.beats.frozen = False

    def cut(self, *links: Link, silently: bool) -> None:
        """Cut this process off from the server."""
        for link in links:
            self._note("is cut off", link=link.name, silently=silently)
            link.cut, link.silent = True, silently
            if not silently:
                link.reset()

    def reconnect(self) -> None:
        """End that."""
        for link in (self.calls, self.leases):
            if link.cut:
                self._note("is connected again", link=link.name)
                link.cut = link.silent = False
                link.disturbed_at = self._around.loop.time()

    def step_clock(self, seconds: float) -> None:
        """Somebody sets the clock of this machine."""
        self._note("has its clock set", seconds=round(seconds, 1))
        self.skew_seconds += seconds

    def undisturbed_seconds(self) -> float:
        """For how long its lease thread could do its work, as far as this process is concerned."""
        if not self.alive or self.beats.frozen or self.leases.cut:
            return 0.0
        return self._around.loop.time() - max(self._beats_disturbed_at, self.leases.disturbed_at)

    def runs(self, job_id: str, lease_id: str) -> bool:
        """Whether this attempt stands in its running table."""
        pool = self._engine._pool if self._engine is not None else None
        return pool is not None and (job_id, lease_id) in pool.running

    def is_past_its_time(self, job_id: str, lease_id: str) -> bool:
        """Whether this attempt is past its time, so that its lease is not renewed any more."""
        engine = self._engine
        assert engine is not None
        held = engine._keeper._leases.get(cast(Claim, (job_id, lease_id)))
        return held is not None and engine.clock.now() >= held.renew_until

    def _live_clock(self) -> ServerClock:
        def local() -> float:
            return BEGINNING.timestamp() + self._around.loop.time() + self.skew_seconds

        return ServerClock(local=local, monotonic=self._around.loop.time)

    async def _live(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                self._engine = engine = self._build()
                await engine.begin(stack, registry=self._registry, workers=self.workers)
                self.state = "running"
                self._note("runs")
                await self._stop.wait()
                self.state = "stopping"
                await engine.drain(self._grace_seconds)
        except JobQueueError as error:
            self._note("cannot start", error=error)
        self.state = "ended"
        self._note("has ended")

    def _build(self) -> SimulatedEngine:
        around, clock = self._around, self._live_clock()
        client: Any = SimulatedClient(around.server, self.calls)
        jobs = MongoJobRepository(
            client,
            DATABASE,
            claim_mode=self._settings.claim,
            clock=clock,
            identifiers=Identifiers(Random(self._random.random())),
        )
        witness = Witness(jobs, self.name, around.history, around.server, settings=self._settings)
        engine = SimulatedEngine(
            self._settings,
            cast(JobRepository, witness),
            clock=clock,
            random=Random(self._random.random()),
            connect_leases=lambda: self._lease_store(clock),
        )
        witness.pool_of = lambda: engine._pool
        engine.worker_id = WorkerId(self.name)
        engine.beats, engine.connect = self.beats, lambda: self._lease_store(clock)
        return engine

    def _lease_store(self, clock: ServerClock) -> MongoLeaseStore:
        client: Any = BlockingClient(self._around.server, self.leases)
        return MongoLeaseStore(client, DATABASE, monotonic=clock.monotonic)

    def _link(self, name: str, **options: float) -> Link:
        around = self._around
        random = Random(self._random.random())
        return Link(self.name, name, around.server, around.weather, random=random, history=around.history, **options)

    def _note(self, what: str, **fields: object) -> None:
        self._around.history.add(self.name, what, **fields)
