"""Several processes on one store: who takes which jobs, so that they do not all try the same ones.

Alone, a process claims from the head of what waits, and whatever it hears of. When claims lose, others are at the same
jobs; then the live workers divide them by a hash of the id, each the same way, and each takes what falls to it: of what
it hears of from the first loss on, of a backlog when much of a claim was lost, and there among what is equally urgent.
What fell to others is looked for a little later, and taken when nothing of one's own is in sight, so the jobs of one
that is busy, or dead, wait no longer than that; and who did not take a job that it could have heard of is passed over
for a while. Nothing depends on their agreeing: who claims is still decided by the store, and a list that is old or
wrong only costs claims that lose, or a little time.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from random import Random

from jobqueue.clock import Clock
from jobqueue.job import Candidate, WorkerId
from jobqueue.repository import Window, WorkerRecord
from jobqueue.settings import ALL_QUEUES

SAME_BACKLOG_SECONDS = 10.0
"""So long after a claim that lost much, more than a quarter, others are thought to be at the same backlog."""
COMPANY_SECONDS = 60.0
"""So long after a claim that lost anything, others are thought to be there still."""
ABSENT_SECONDS = 10.0
"""So long nothing falls to a worker that did not take what fell to it."""
LEFT_SECONDS = 0.25
"""About how long what was heard of is left to another before it is looked for."""
SIGNAL_SPREAD_SECONDS = 0.005
"""Processes woken by one signal look at slightly different times, while they get in each other's way."""
COMPANY_FADES = 0.95
"""With each claim that is won whole, the company of others counts for so much less."""
MAX_WINDOWS = 4
"""So many windows are fetched as one, at most, where only a part of them is one's own."""


class Contention:
    """Whether others take the same jobs, and which of them this process leaves to the others."""

    def __init__(self, worker_id: WorkerId, clock: Clock) -> None:
        self._worker_id = worker_id
        self._clock = clock
        self._lost_at = float("-inf")
        self._lost_much_at = float("-inf")
        self._company = 0.0
        self._met_at = float("-inf")
        self._others: Sequence[WorkerRecord] = ()
        self._absent: dict[WorkerId, float] = {}
        self._serving: dict[str, list[WorkerId]] = {}

    @property
    def is_alone(self) -> bool:
        """Whether no claim has lost anything for a while, or no other worker lives."""
        met_nobody = self._met_at > self._lost_at and not self._others
        return met_nobody or self._clock.monotonic() - self._lost_at >= COMPANY_SECONDS

    @property
    def knows_others(self) -> bool:
        """Whether it is known who the others are."""
        return bool(self._others)

    @property
    def shares(self) -> int:
        """Among how many a backlog is divided."""
        return len(self._others) + 1 if self._is_much_lost else 1

    @property
    def _is_much_lost(self) -> bool:
        return self._clock.monotonic() - self._lost_much_at < SAME_BACKLOG_SECONDS

    def observe(self, *, asked: int, won: int) -> bool:
        """Learn from a claim. Returns whether it was the first to tell of others: then much of what is at hand here
        is theirs by now."""
        now = self._clock.monotonic()
        self._company = self._company * COMPANY_FADES if won == asked else 1.0
        if won < asked:
            self._lost_at = now
        if asked == 1 or won * 4 >= asked * 3:
            return False
        noticed, self._lost_much_at = self._is_much_lost, now
        return not noticed

    def meet(self, workers: Iterable[WorkerRecord]) -> None:
        """These are alive, this one or not."""
        self._others = [worker for worker in workers if worker.id != self._worker_id]
        self._met_at = now = self._clock.monotonic()
        self._absent = {worker: until for worker, until in self._absent.items() if until > now}
        self._serving.clear()

    def is_left(self, candidate: Candidate) -> bool:
        """Whether a job that was heard of falls to another."""
        return not (self.is_alone or self._is_mine(candidate))

    def miss(self, candidates: Iterable[Candidate]) -> None:
        """These jobs, which fell to others, still wait long after those could have taken them."""
        owners = {self._owner(candidate) for candidate in candidates} - {self._worker_id}
        if owners:
            self._absent |= dict.fromkeys(owners, self._clock.monotonic() + ABSENT_SECONDS)
            self._serving.clear()

    def share(self, window: Window, *, busy: Container[Candidate]) -> Window:
        """The part of a window that this process should try: some of the most urgent, since what is left to others
        must not be passed over for something less urgent; all of these when none of them is its own."""
        free = [candidate for candidate in window.candidates if candidate not in busy]
        if self.shares == 1 or not free:
            return window
        urgent = [candidate for candidate in free if candidate.rank == free[0].rank]
        mine = [candidate for candidate in urgent if self._is_mine(candidate)]
        if not mine and len(urgent) == len(window.candidates):
            return window
        return Window([*mine, urgent[-1]] if mine else urgent, complete=False)

    def hesitation(self, random: Random) -> float:
        """For how many seconds to leave what was signalled to others: none for a process that lost nothing."""
        return self._company * SIGNAL_SPREAD_SECONDS * random.random()

    def _is_mine(self, candidate: Candidate) -> bool:
        return self._owner(candidate) == self._worker_id

    def _owner(self, candidate: Candidate) -> WorkerId:
        workers = self._serving.get(candidate.queue) or self._find_serving(candidate.queue)
        return workers[zlib.crc32(candidate.id.encode()) % len(workers)]

    def _find_serving(self, queue: str) -> list[WorkerId]:
        others = {worker.id for worker in self._others if queue in worker.queues or ALL_QUEUES in worker.queues}
        workers = self._serving[queue] = sorted({*others - self._absent.keys(), self._worker_id})
        return workers


class LeftToOthers:
    """What was heard of and left to another process, until it is looked for in case that one is busy or dead."""

    def __init__(self, *, on_time: Callable[[], None], clock: Clock, random: Random) -> None:
        """`on_time` is called when a look is due."""
        self._on_time = on_time
        self._clock = clock
        self._random = random
        self._heard_at: dict[Candidate, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, candidates: Iterable[Candidate]) -> None:
        """These were heard of just now."""
        self._heard_at |= dict.fromkeys(candidates, self._clock.monotonic())
        if self._timer is None:
            seconds = LEFT_SECONDS * (0.5 + self._random.random())  # or all would look at the same time
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_time)

    def has_before(self, candidates: Sequence[Candidate]) -> bool:
        """Whether something more urgent than one of these was left, which nobody may have yet."""
        return bool(self._heard_at) and min(self._heard_at).rank < max(candidates).rank

    def seek(self) -> Mapping[Candidate, float]:
        """A look at the head begins, which will show what became of it. Returns since when each is left."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        return dict(self._heard_at)

    def see(self, sought: Mapping[Candidate, float], window: Window, *, began: float) -> Set[Candidate]:
        """The look that began then has shown this. Returns what still waits, and another could have taken by then."""
        for candidate in sought:
            self._heard_at.pop(candidate, None)
        enough = began - LEFT_SECONDS / 2
        return {candidate for candidate, heard_at in sought.items() if heard_at <= enough} & set(window.candidates)
