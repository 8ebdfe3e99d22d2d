"""The composition root: builds everything from the settings, and takes it down in order.

The only module that knows every adapter. Nothing connects at import.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from random import Random

import structlog

from jobqueue import __version__
from jobqueue.admission import AdmissionLimits
from jobqueue.attempt import Execute
from jobqueue.clock import Identifiers, OffsetMeter, ServerClock
from jobqueue.dispatch import Dispatcher, SignallingDispatcher
from jobqueue.doctor import Inspector
from jobqueue.driver import connect, lease_store
from jobqueue.errors import Unavailable
from jobqueue.execution import execute
from jobqueue.faults import FaultyExecution
from jobqueue.following import Followers
from jobqueue.job import Claim, WorkerId
from jobqueue.leases import Contact, LeaseKeeper, LeaseThread, Notice
from jobqueue.maintenance import (
    EMBEDDED_FINISHED_KEPT,
    Accountant,
    Adopter,
    Duty,
    Janitor,
    Pruner,
    Reaper,
    Registrar,
    Retention,
    Stager,
)
from jobqueue.mongo import MongoJobRepository
from jobqueue.mongo.calls import settled
from jobqueue.mongo.inspection import MongoInspector
from jobqueue.mongo.store import Store
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.repository import JobRepository, LeaseStore, WorkerRecord
from jobqueue.retry import BackoffPolicy
from jobqueue.service import JobService
from jobqueue.settings import Settings
from jobqueue.tasks import Registry
from jobqueue.worker import PoolOptions, WorkerPool

FLUSH_SECONDS = 8.0
"""After the grace period: time for the last outcomes to be written."""
FIRST_BEAT_SECONDS = 10.0
TICK_SECONDS = 5.0
LOGS_OUTLIVE_JOBS = timedelta(days=1)
"""Logs go with their jobs; this is for those that a crash separated."""
SHOWN_RUNNING = 100
"""A worker's record names at most this many of the jobs it runs."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def inspecting(settings: Settings, mongodb_uri: str) -> AsyncIterator[Inspector]:
    """The doctor's view of the database of this URI. Nothing is changed by connecting."""
    client = connect(settings, mongodb_uri)
    store = Store(client, settings.database)
    try:
        yield MongoInspector(store, clock=ServerClock())
    finally:
        await store.calls.drain()
        await settled(client.close())


class Engine:
    """Everything of this process but HTTP: the service, and the pool if it has workers."""

    service: JobService

    def __init__(
        self,
        settings: Settings,
        jobs: JobRepository,
        *,
        clock: ServerClock,
        random: Random,
        connect_leases: Callable[[], LeaseStore],
        metrics: PrometheusMetrics | None = None,
    ) -> None:
        """`connect_leases` is called in the lease thread, for a connection of its own; `metrics` are told what
        happens, beside what the repository tells them."""
        lease = timedelta(seconds=settings.lease_seconds)
        self._settings, self._jobs, self.clock, self._random, self._lease = settings, jobs, clock, random, lease
        self._identifiers = Identifiers(random)
        self.metrics = metrics or PrometheusMetrics()
        self.worker_id = WorkerId(f"{socket.gethostname()}:{os.getpid()}:{self._identifiers.token()[:8]}")
        self._keeper = LeaseKeeper(lease)
        self._contact = Contact(longest_gap=lease.total_seconds() / 2)
        self._lease_thread = LeaseThread(
            self._keeper,
            connect_leases,
            lease=lease,
            clock=clock,
            meter=OffsetMeter(clock),
            contact=self._contact,
            notify=self._notify,
        )
        self._loop = asyncio.get_running_loop()
        self._followers = Followers(jobs)
        self._pool: WorkerPool | None = None
        self._background: list[asyncio.Task[None]] = []
        self._ticking: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls, settings: Settings, stack: AsyncExitStack, *, registry: Registry, mongodb_uri: str, workers: bool
    ) -> Engine:
        """Connect to the database of this URI and begin. What was started is taken down when the stack unwinds."""
        clock, random = ServerClock(), Random(os.urandom(16))
        # A process without workers takes in jobs of any type.
        metrics = PrometheusMetrics(types=registry.types if workers else None)
        jobs = MongoJobRepository(
            connect(settings, mongodb_uri),
            settings.database,
            claim_mode=settings.claim,
            clock=clock,
            logs_kept=_longest_retention(settings) + LOGS_OUTLIVE_JOBS,
            observer=metrics,
        )
        engine = cls(
            settings,
            jobs,
            clock=clock,
            random=random,
            connect_leases=lambda: lease_store(settings, mongodb_uri),
            metrics=metrics,
        )
        await engine.begin(stack, registry=registry, workers=workers)
        return engine

    async def begin(self, stack: AsyncExitStack, *, registry: Registry, workers: bool) -> None:
        """Begin to work on the store that this engine was given."""
        stack.push_async_callback(self._jobs.aclose)
        await self._jobs.prepare()
        stack.push_async_callback(self._end_beating)
        await self._begin_to_beat()
        dispatcher = self._build_pool(registry) if workers else SignallingDispatcher(self._jobs, self.clock)
        self.service = self._build_service(dispatcher, registry)
        stack.push_async_callback(self.service.aclose)
        stack.push_async_callback(self._end_tasks, self._ticking)
        stack.push_async_callback(self._end_tasks, self._background)

    async def drain(self, grace_seconds: float) -> None:
        """Take no more work, finish or give back what is here, say goodbye."""
        self.service.stop_accepting()
        await self._end_tasks(self._background)
        if self._pool is not None:
            await self._pool.stop(grace_seconds=grace_seconds, flush_seconds=FLUSH_SECONDS)
            with contextlib.suppress(Unavailable):
                await self._jobs.farewell(self.worker_id)

    async def _begin_to_beat(self) -> None:
        self._lease_thread.start()
        if not await asyncio.to_thread(self._lease_thread.wait_for_first_beat, FIRST_BEAT_SECONDS):
            raise Unavailable("MongoDB answered, but not to the lease thread; see the log")

    async def _end_beating(self) -> None:
        await asyncio.to_thread(self._lease_thread.stop)

    def _build_service(self, dispatcher: Dispatcher, registry: Registry) -> JobService:
        def max_retries_of(job_type: str) -> int:
            task = registry.find(job_type)
            return task.max_retries if task is not None and task.max_retries else self._settings.max_retries

        return JobService(
            self._jobs,
            dispatcher,
            clock=self.clock,
            identifiers=self._identifiers,
            followers=self._followers,
            max_retries_of=max_retries_of,
            faults=self._settings.faults,
            limits=AdmissionLimits(
                pending=self._settings.max_pending,
                pending_per_queue=self._settings.max_pending_per_queue,
                a_second=self._settings.rate_limit,
            ),
            observer=self.metrics,
        )

    def _build_pool(self, registry: Registry) -> WorkerPool:
        settings, clock, random = self._settings, self.clock, self._random
        self._pool = pool = WorkerPool(
            self._jobs,
            registry,
            self._keeper,
            options=PoolOptions(
                slots=settings.workers,
                queue_size=settings.queue_size,
                queues=settings.queues,
                poll_seconds=settings.poll_seconds,
                lease=self._lease,
                timeout_seconds=settings.timeout_seconds,
                backoff=BackoffPolicy(settings.backoff_base_seconds, settings.backoff_max_seconds),
            ),
            worker_id=self.worker_id,
            clock=clock,
            identifiers=self._identifiers,
            random=random,
            on_finished=self._followers.moved,
            on_scheduled=lambda due: stager.wake_at(due),
            observer=self.metrics,
            execute=self._execution(),
        )
        self.metrics.watch_pool(slots=settings.workers, running=lambda: len(pool.running))
        stager = Stager(self._jobs, pool, poll_seconds=settings.poll_seconds, clock=clock, random=random)
        duties = (duty.run() for duty in self._duties(pool, stager))
        self._background += [asyncio.create_task(each) for each in (pool.poller.run(), *duties)]
        # Until the very end: what is given its grace period needs its leases.
        self._ticking.append(asyncio.create_task(self._tick_for_leases()))
        return pool

    def _execution(self) -> Execute:
        if not self._settings.faults:
            return execute
        log.warning("jobs fail on purpose where their fault says so; JOBQUEUE_FAULTS is on")
        return FaultyExecution(self._settings.fault, random=self._random).execute

    def _duties(self, pool: WorkerPool, stager: Stager) -> list[Duty]:
        jobs, clock, random = self._jobs, self.clock, self._random
        started_at = clock.now()

        def describe() -> WorkerRecord:
            return WorkerRecord(
                id=self.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                queues=list(self._settings.queues),
                slots=self._settings.workers,
                running=[claim.job_id for claim in pool.running[:SHOWN_RUNNING]],
                started_at=started_at,
                heartbeat_at=clock.now(),
            )

        return [
            stager,
            Reaper(
                jobs,
                pool,
                contact=self._contact,
                lease=self._lease,
                clock=clock,
                random=random,
                observer=self.metrics,
            ),
            Pruner(jobs, retention=self._retention(), clock=clock, random=random),
            Adopter(jobs, pool, clock=clock, random=random),
            Janitor(pool.release_orphans, random=random),
            Registrar(jobs, describe, random=random),
            Accountant(jobs, clock=clock, random=random),
        ]

    def _retention(self) -> Retention:
        return Retention(
            completed=timedelta(seconds=self._settings.retention_completed_seconds),
            failed=timedelta(seconds=self._settings.retention_failed_seconds),
            most=EMBEDDED_FINISHED_KEPT if self._jobs.features.embedded else None,
        )

    async def _tick_for_leases(self) -> None:
        while True:
            self._keeper.loop_ticked(self.clock.monotonic())
            await asyncio.sleep(TICK_SECONDS)

    def _notify(self, notices: Sequence[tuple[Claim, Notice]]) -> None:
        if self._pool is not None:
            self._loop.call_soon_threadsafe(self._pool.notice, notices)

    async def _end_tasks(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("background work failed", exc_info=result)
        tasks.clear()


def _longest_retention(settings: Settings) -> timedelta:
    return timedelta(seconds=max(settings.retention_completed_seconds, settings.retention_failed_seconds))
