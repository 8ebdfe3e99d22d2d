"""What keeps the collection healthy: one small duty each, all with the same skeleton.

None needs a leader. Every process with workers does all of them, at slightly different times; each step is a
compare-and-set that only one can win, in batches of at most `BATCH`.

- reaper      takes back the jobs of dead workers, but only while contact with the primary has been steady for half a
              lease: after an outage every healthy lease looks expired until its owner has renewed it
- stager      makes scheduled jobs pending when they are due; wakes at the time of the next one that it knows of
- pruner      deletes finished jobs after their retention, and forgets queues that nobody uses
- adopter     fills in what documents made by hand lack
- janitor     gives back claims whose answers were lost and which were carried out late
- registrar   shows that this process lives
- accountant  writes what this process counted, and adds up what silent ones did
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import structlog

from jobqueue.clock import Clock
from jobqueue.dispatch import Dispatcher
from jobqueue.errors import Unavailable
from jobqueue.job import FINISHED, Status
from jobqueue.leases import Contact
from jobqueue.repository import JobRepository, WorkerRecord
from jobqueue.telemetry import UNOBSERVED, Observer

BATCH = 1_000
JITTER = 0.2
CLOCK_MARGIN = timedelta(seconds=2)
"""How long after its end a lease is left alone, since clocks are measured, not known."""
ADOPT_SECONDS = 5.0
PRUNE_SECONDS = 30.0
JANITOR_SECONDS = 10.0
BEAT_SECONDS = 15.0
COUNT_SECONDS = 1.0
FOLD_SECONDS = 60.0
FORGET_QUEUES_SECONDS = 3_600.0
QUEUE_UNUSED = timedelta(days=7)
EMBEDDED_FINISHED_KEPT = 10_000
"""The embedded server's lists and counts cost as much as it holds."""

log = structlog.get_logger(__name__)


class Duty(ABC):
    """Something to be done again and again, with a jittered pause in between."""

    def __init__(self, *, seconds: float, random: Random) -> None:
        self._seconds = seconds
        self._random = random
        self._hurry = asyncio.Event()
        self._available = True

    @abstractmethod
    async def step(self) -> bool:
        """Do one batch. Returns whether there is more to be done at once. Raises `Unavailable`."""

    def hurry(self) -> None:
        """Do not wait for the end of the pause."""
        self._hurry.set()

    async def run(self) -> None:
        """Work and pause, for ever; cancel it to stop."""
        while True:
            self._hurry.clear()
            if not await self._try():
                await self._pause()

    async def _try(self) -> bool:
        try:
            more = await self.step()
        except Unavailable as error:
            if self._available:
                log.warning("maintenance waits for MongoDB", duty=type(self).__name__, reason=str(error))
            self._available = False
            return False
        except Exception:  # of ours, or due to a document that nobody thought of; the next step may do better
            log.exception("maintenance failed", duty=type(self).__name__)
            return False
        self._available = True
        return more

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds * (1 - JITTER * self._random.random())):
                await self._hurry.wait()


class Reaper(Duty):
    """Takes back the jobs of workers that went silent."""

    def __init__(
        self,
        jobs: JobRepository,
        dispatcher: Dispatcher,
        *,
        contact: Contact,
        lease: timedelta,
        clock: Clock,
        random: Random,
        observer: Observer = UNOBSERVED,
    ) -> None:
        super().__init__(seconds=lease.total_seconds() / 3, random=random)
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._contact = contact
        self._patience_seconds = lease.total_seconds() / 2
        self._margin = min(CLOCK_MARGIN, lease / 2)
        self._observer = observer
        self._clock = clock

    async def step(self) -> bool:
        """Rescue one batch; nothing while contact has not been steady for long enough."""
        if not self._is_steady():
            return False
        # Looking for them may take as long as an outage, after which the server's clock may be another one.
        rescued = await self._jobs.rescue(
            cutoff=self._clock.surely_past() - self._margin, at=self._clock.now(), limit=BATCH, still=self._is_steady
        )
        self._dispatcher.offer_candidates(rescued.requeued)
        counts = {"requeued": len(rescued.requeued), "failed": rescued.failed, "cancelled": rescued.cancelled}
        if any(counts.values()):
            self._observer.leases_expired(**counts)
            log.warning("leases expired", **counts)
        return sum(counts.values()) == BATCH

    def _is_steady(self) -> bool:
        return self._contact.steady_seconds(self._clock.monotonic()) >= self._patience_seconds


class Stager(Duty):
    """Makes scheduled jobs pending when their time has come."""

    def __init__(
        self, jobs: JobRepository, dispatcher: Dispatcher, *, poll_seconds: float, clock: Clock, random: Random
    ) -> None:
        super().__init__(seconds=poll_seconds, random=random)
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._clock = clock
        self._next_due: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None

    def wake_at(self, due: datetime) -> None:
        """A job is scheduled for this time: be there when it comes, not at the next poll."""
        if self._next_due is not None and self._next_due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next_due = due
        delay = (due - self._clock.now()).total_seconds()
        if delay < self._seconds:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self.hurry)

    async def step(self) -> bool:
        """Promote one batch."""
        now = self._clock.now()
        self._next_due = None
        promoted = await self._jobs.promote(now=now, limit=BATCH)
        self._dispatcher.offer_candidates(promoted.candidates)
        if promoted.next_due is not None:
            self.wake_at(promoted.next_due)
        return len(promoted.candidates) == BATCH


@dataclass(frozen=True, slots=True)
class Retention:
    """How long finished jobs are kept. `most` bounds their number; None is no bound."""

    completed: timedelta
    failed: timedelta
    most: int | None = None

    def of(self, status: Status) -> timedelta:
        """How long jobs that ended like this are kept; cancelled ones as long as completed ones."""
        return self.failed if status is Status.FAILED else self.completed


class Pruner(Duty):
    """Deletes finished jobs after their retention, ids first, in batches that each make progress."""

    def __init__(self, jobs: JobRepository, *, retention: Retention, clock: Clock, random: Random) -> None:
        super().__init__(seconds=PRUNE_SECONDS, random=random)
        self._jobs = jobs
        self._retention = retention
        self._clock = clock
        self._queues_pruned_at = clock.monotonic()
        self._told = False

    async def step(self) -> bool:
        """Delete at most one batch of each kind."""
        now = self._clock.now()
        full = False
        for status in sorted(FINISHED):
            cutoff = now - self._retention.of(status)
            full = await self._jobs.prune(status, finished_before=cutoff, limit=BATCH) >= BATCH or full
        if self._retention.most is not None:
            full = await self._prune_excess(keep=self._retention.most) >= BATCH or full
        await self._forget_queues(now)
        return full

    async def _prune_excess(self, *, keep: int) -> int:
        deleted = await self._jobs.prune_excess(keep=keep, limit=BATCH)
        if deleted and not self._told:
            log.warning(
                "finished jobs are deleted before their retention is over, the embedded server keeps few", kept=keep
            )
            self._told = True
        return deleted

    async def _forget_queues(self, now: datetime) -> None:
        if self._clock.monotonic() - self._queues_pruned_at >= FORGET_QUEUES_SECONDS:
            self._queues_pruned_at = self._clock.monotonic()
            await self._jobs.prune_signals(unused_since=now - QUEUE_UNUSED)


class Adopter(Duty):
    """Makes jobs of documents that were put into the collection by hand."""

    def __init__(self, jobs: JobRepository, dispatcher: Dispatcher, *, clock: Clock, random: Random) -> None:
        super().__init__(seconds=ADOPT_SECONDS, random=random)
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._clock = clock

    async def step(self) -> bool:
        """Adopt one batch."""
        adopted = await self._jobs.adopt(at=self._clock.now(), limit=BATCH)
        self._dispatcher.offer_candidates(adopted)
        return len(adopted) == BATCH


class Janitor(Duty):
    """Settles claims whose answers were lost."""

    def __init__(self, release_orphans: Callable[[], Awaitable[None]], *, random: Random) -> None:
        super().__init__(seconds=JANITOR_SECONDS, random=random)
        self._release_orphans = release_orphans

    async def step(self) -> bool:
        """Give back what was claimed too late to be run."""
        await self._release_orphans()
        return False


class Registrar(Duty):
    """Shows in `workers` that this process lives and what it runs."""

    def __init__(self, jobs: JobRepository, describe: Callable[[], WorkerRecord], *, random: Random) -> None:
        super().__init__(seconds=BEAT_SECONDS, random=random)
        self._jobs = jobs
        self._describe = describe

    async def step(self) -> bool:
        """Write one sign of life."""
        await self._jobs.beat(self._describe())
        return False


class Accountant(Duty):
    """Keeps the totals of the database: nothing is written while there is nothing new to count."""

    def __init__(self, jobs: JobRepository, *, clock: Clock, random: Random) -> None:
        super().__init__(seconds=COUNT_SECONDS, random=random)
        self._jobs = jobs
        self._clock = clock
        self._folded_at = clock.monotonic()

    async def step(self) -> bool:
        """Write what was counted; now and then add up what silent processes left behind."""
        await self._jobs.save_counts()
        if self._clock.monotonic() - self._folded_at >= FOLD_SECONDS:
            self._folded_at = self._clock.monotonic()
            await self._jobs.fold_counts()
        return False
