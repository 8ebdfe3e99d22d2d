"""One run: the processes, the clients, the faults; then calm, until every accepted job has ended.

`simulate(seed)` returns what happened and what was wrong with it. Equal seeds have equal histories.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any
from unittest import mock

import structlog
from simulated.history import History, Write
from simulated.invariants import Violation, violations
from simulated.loop import DOMAIN, VirtualLoop
from simulated.network import Weather
from simulated.process import SimulatedProcess, Surroundings
from simulated.scenario import Fault, PlannedJob, Profile, Request, Scenario
from simulated.server import SimulatedServer
from simulated.work import TYPE, Work, payload_of

from jobqueue.errors import JobQueueError
from jobqueue.repository import JobFilter
from jobqueue.service import JobService, NewJob
from jobqueue.settings import Settings

LONGEST_DRAIN_SECONDS = 3_600
LONGEST_STOP_SECONDS = 120
RESTART_SECONDS = 3.0
BUGS = frozenset({"worker pool step failed", "background work failed"})
"""What the engine logs when its own code raised what it must not."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended."""

    scenario: Scenario
    history: History
    violations: list[Violation]
    seconds: float

    def report(self, lines: int = 60) -> str:
        """What was wrong, and the history that led to it."""
        told = [f"seed {self.scenario.seed}: {self.scenario}"]
        for violation in self.violations[:5]:
            told.append(f"\nBROKEN  {violation}")
        if self.violations:
            told.append(f"\n{self.history.tail(job_id=self.violations[0].job_id, count=lines)}")
        return "\n".join(told)


def simulate(
    seed: int,
    profile: Profile = Profile(),  # noqa: B008 (immutable)
    *,
    drain_seconds: int = LONGEST_DRAIN_SECONDS,
) -> Run:
    """Run the scenario of a seed and check what happened. After `drain_seconds` of calm no job may be left."""
    scenario = Scenario.of(seed, profile)
    loop = VirtualLoop(Random(f"order {seed}"), disorder=scenario.disorder)
    history = History(loop.time)
    # The number of calls in flight follows the number of threads, which follows the machine.
    with _logging_into(history), mock.patch.dict(os.environ, {"MOTOR_MAX_WORKERS": "12"}):
        try:
            world = loop.run_until_complete(_run(loop, scenario, history, drain_seconds))
            seconds = loop.time()
            found = violations(history, world)
        finally:
            history.closed = True
            _take_down(loop)
    return Run(scenario, history, found, seconds)


async def _run(loop: VirtualLoop, scenario: Scenario, history: History, drain_seconds: int) -> World:
    def note(_: object, problem: Mapping[str, Any]) -> None:
        history.add("loop", "bug", what=problem["message"], error=repr(problem.get("exception")))

    loop.set_exception_handler(note)
    world = World(loop, scenario, history)
    await world.live(drain_seconds)
    return world


class World:
    """Everything there is in one run."""

    def __init__(self, loop: VirtualLoop, scenario: Scenario, history: History) -> None:
        self.scenario = scenario
        self._loop = loop
        self._history = history
        self._random = Random(f"world {scenario.seed}")
        self.server = SimulatedServer(self._chance(), history, options=scenario.server)
        self.server.on_write = self._judge_rescue
        weather = Weather(scenario.latency_seconds, scenario.call_faults)
        self._around = Surroundings(loop, self.server, weather, history)
        self._work = Work(history)
        self._errands: list[asyncio.Task[None]] = []
        self.processes: list[SimulatedProcess] = []
        self.all_ended = False

    async def live(self, drain_seconds: int) -> None:
        """Trouble, calm, the end."""
        for _ in range(self.scenario.workers):
            self._start(workers=True)
        self._start(workers=False)
        for job in self.scenario.jobs:
            self._errand(job.at, self._ask(partial(self._enqueue, job)))
        for request in self.scenario.requests:
            self._errand(request.at, self._ask(partial(self._request, request)))
        for fault in self.scenario.faults:
            self._errand(fault.at, self._cause(fault))
        await asyncio.sleep(self.scenario.calm_at)
        await self._calm_down()
        await asyncio.gather(*self._errands)
        self.all_ended = await self._drained(drain_seconds)
        await self._stop_all()

    # Processes

    def _start(self, *, workers: bool) -> SimulatedProcess:
        kind = "worker" if workers else "api"
        process = SimulatedProcess(
            f"{kind}{len(self.processes) + 1}",
            self._around,
            settings=self._settings(),
            registry=self._work.registry(f"{kind}{len(self.processes) + 1}"),
            workers=workers,
            skew_seconds=self._random.choice([0.0, self._random.uniform(-300, 300)]),
            random=self._chance(),
        )
        self.processes.append(process)
        process.start()
        return process

    def _settings(self) -> Settings:
        scenario = self.scenario
        return Settings.model_construct(
            **Settings().model_dump()
            | {
                "lease_seconds": scenario.lease_seconds,
                "poll_seconds": scenario.poll_seconds,
                "claim": scenario.claim,
                "workers": scenario.slots,
                "queue_size": scenario.queue_size,
                "retention_completed_seconds": scenario.retention_seconds,
                "retention_failed_seconds": scenario.retention_seconds,
                "backoff_max_seconds": 5.0,
            }
        )

    def process(self, name: str) -> SimulatedProcess | None:
        """By its name, which is also its worker id."""
        return next((process for process in self.processes if process.name == name), None)

    def _chance(self) -> Random:
        return Random(self._random.random())

    def _errand(self, at: float, work: Coroutine[Any, Any, None]) -> None:
        async def later() -> None:
            await asyncio.sleep(at)
            await work

        self._errands.append(self._loop.create_task(later()))

    # Clients

    async def _ask(self, what: Callable[[JobService], Coroutine[Any, Any, None]]) -> None:
        listening = [process for process in self.processes if process.service is not None]
        if listening:
            process = self._random.choice(listening)
            assert process.service is not None
            process.perform(_asked(partial(what, process.service)))

    async def _enqueue(self, job: PlannedJob, service: JobService) -> None:
        new = NewJob(
            type=TYPE,
            payload=payload_of(job.plan),
            id=job.name,
            queue=job.queue,
            priority=job.priority,
            max_retries=job.max_retries,
            delay_seconds=job.delay_seconds or None,
            timeout_seconds=job.timeout_seconds,
        )
        if job.batch == 1:
            await service.enqueue(new)
        else:
            await service.enqueue_many([new] * job.batch)

    async def _request(self, request: Request, service: JobService) -> None:
        jobs = list(self.server.jobs())
        if not jobs:
            return
        job_id = self._random.choice(jobs)
        match request.what:
            case "cancel":
                await service.cancel(job_id)
            case "redrive":
                await service.redrive(job_id)
            case "redrive many":
                await service.redrive_many(JobFilter(), limit=100)

    # Trouble

    async def _cause(self, fault: Fault) -> None:
        match fault.kind:
            case "outage":
                await self._outage(fault)
            case "stepdown":
                self._change_primary(fault)
            case "rolling restart":
                await self._rolling_restart(fault)
            case _:
                await self._strike(fault)

    async def _outage(self, fault: Fault) -> None:
        self._history.add("server", "goes away")
        self.server.away = True
        self._reset_all()
        await asyncio.sleep(fault.seconds)
        if fault.silently:
            self._change_primary(fault)
        self._history.add("server", "is back")
        self.server.away = False

    def _change_primary(self, fault: Fault) -> None:
        step = fault.clock_step if abs(fault.clock_step) <= 1 else fault.clock_step / 10
        self.server.change_primary(clock_step=timedelta(seconds=step), undo=fault.steps % 2 == 0)
        self._reset_all()

    def _reset_all(self) -> None:
        for process in self.processes:
            process.calls.reset()
            process.leases.reset()

    async def _rolling_restart(self, fault: Fault) -> None:
        for process in [process for process in self.processes if process.alive]:
            self._start(workers=process.workers)
            await asyncio.sleep(self._random.random() * 2)
            process.stop(grace_seconds=self._random.random() * fault.seconds)

    async def _strike(self, fault: Fault) -> None:
        alive = [process for process in self.processes if process.alive]
        if not alive:
            return
        victim = self._random.choice([process for process in alive if not process.is_struck] or alive)
        struck = asyncio.Event()
        # An idle or frozen victim has no further steps to wait for.
        self._loop.call_later(0.5, struck.set)
        victim.main.after_steps(fault.steps, struck.set)
        await struck.wait()
        if victim.alive:
            await self._strike_now(victim, fault)

    async def _strike_now(self, victim: SimulatedProcess, fault: Fault) -> None:
        match fault.kind:
            case "partition":
                victim.cut(victim.calls, victim.leases, silently=fault.silently)
            case "partition of calls":
                victim.cut(victim.calls, silently=fault.silently)
            case "partition of leases":
                victim.cut(victim.leases, silently=fault.silently)
            case "freeze":
                victim.freeze(main=True, beats=True)
            case "blocked loop":
                victim.freeze(main=True, beats=False)
            case "silent heartbeat":
                victim.freeze(main=False, beats=True)
            case "clock set":
                victim.step_clock(fault.clock_step)
            case "kill":
                victim.kill()
            case "stop":
                victim.stop(grace_seconds=fault.seconds / 2)
        await asyncio.sleep(fault.seconds)
        victim.thaw()
        victim.reconnect()
        if fault.kind in ("kill", "stop"):
            self._start(workers=victim.workers)

    async def _calm_down(self) -> None:
        self._history.add("world", "is calm from now on")
        self._around.weather.fault = 0.0
        self.server.away = False
        for process in self.processes:
            process.thaw()
            process.reconnect()
        await asyncio.sleep(RESTART_SECONDS)
        self._start(workers=True)

    async def _drained(self, seconds: int) -> bool:
        for _ in range(seconds):
            if all("finishedAt" in job for job in self.server.jobs().values()):
                return True
            await asyncio.sleep(1.0)
        return False

    async def _stop_all(self) -> None:
        for process in self.processes:
            process.thaw()
            process.stop(grace_seconds=1.0)
        for _ in range(LONGEST_STOP_SECONDS):
            if not any(process.alive for process in self.processes):
                break
            await asyncio.sleep(1.0)

    # What only the world can know

    def _judge_rescue(self, write: Write) -> None:
        """Note, with every attempt that is taken from its owner, how that owner was."""
        before, after = write.before, write.after
        if not before or "lease" not in before or not after or "lease" in after:
            return
        if before.get("lastOutcome") != after.get("lastOutcome"):
            return
        lease = before["lease"]
        owner = self.process(lease["workerId"])
        assert owner is not None, "a lease of nobody"
        runs = owner.alive and owner.runs(write.job_id, lease["id"])
        self._history.add(
            write.process,
            "takes back",
            job=write.job_id,
            lease=lease["id"],
            owner=owner.name,
            runs=runs and self._work.has_begun(lease["id"], write.job_id),
            undisturbed=round(owner.undisturbed_seconds(), 3),
            past_its_time=runs and owner.is_past_its_time(write.job_id, lease["id"]),
        )


async def _asked(what: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await what()
    except JobQueueError:
        return  # the witness has noted what the client was told


@contextmanager
def _logging_into(history: History) -> Iterator[None]:
    """Put what the engine logs into the history. Its own bugs are events of their own."""

    def capture(_: Any, level: str, event: MutableMapping[str, Any]) -> Any:
        what = event.pop("event")
        error = event.pop("exc_info", None)
        name = DOMAIN.get().name
        if what in BUGS or level == "critical":
            history.add(name, "bug", what=what, error=repr(error))
        elif level != "debug" and not what.startswith("job "):
            history.add(name, f"logs: {what}", **event)
        raise structlog.DropEvent

    kept = structlog.get_config()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**kept)


def _take_down(loop: VirtualLoop) -> None:
    """End whatever is left, the dead included, where it can do no harm any more."""
    loop.thaw_all()
    loop.set_exception_handler(lambda *_: None)
    for _ in range(100):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=100))
    loop.close()
