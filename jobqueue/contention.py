"""Several processes on one backlog: who takes which jobs, so that they do not all try the same ones.

Alone, a process claims from the head of what waits. When claims lose, others are at the same jobs; then the live
workers divide what is equally urgent by a hash of the id, each the same way, and each takes what falls to it. What
fell to others is taken when nothing of one's own is in sight, so the jobs of one that is busy, or serves other
queues, or is dead and not yet missed, wait no longer than that. Nothing depends on their agreeing: who claims is
still decided by the store, and a list that is old or wrong only costs claims that lose.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable
from random import Random

from jobqueue.clock import Clock
from jobqueue.job import Candidate, WorkerId
from jobqueue.repository import Window

LASTS_SECONDS = 10.0
"""So long after a claim that lost, the others are thought to be there still."""
SIGNAL_SPREAD_SECONDS = 0.005
"""Processes woken by one signal look at slightly different times, while they get in each other's way."""
COMPANY_FADES = 0.95
"""With each claim that is won whole, the company of others counts for so much less."""
NEGLIGIBLE = 0.1
MAX_WINDOWS = 4
"""So many windows are fetched as one, at most, where only a part of them is one's own."""


class Contention:
    """Whether others take the same jobs, and which of them this process leaves to the others."""

    def __init__(self, worker_id: WorkerId, clock: Clock) -> None:
        self._worker_id = worker_id
        self._clock = clock
        self._lost_at = float("-inf")
        self._company = 0.0
        self._workers: list[WorkerId] = [worker_id]

    @property
    def is_noticed(self) -> bool:
        """Whether a claim lost more than a quarter of what it asked for, a short while ago."""
        return self._clock.monotonic() - self._lost_at < LASTS_SECONDS

    @property
    def shares(self) -> int:
        """Among how many what waits is divided."""
        return len(self._workers) if self.is_noticed else 1

    def observe(self, *, asked: int, won: int) -> bool:
        """Learn from a claim. Returns whether it was the first to tell of others: then much of what is at hand here
        is theirs by now."""
        self._company = self._company * COMPANY_FADES if won == asked else 1.0
        if asked == 1 or won * 4 >= asked * 3:
            return False
        noticed, self._lost_at = self.is_noticed, self._clock.monotonic()
        return not noticed

    def meet(self, workers: Iterable[WorkerId]) -> None:
        """These are alive, this one or not."""
        self._workers = sorted({*workers, self._worker_id})

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

    @property
    def is_alone(self) -> bool:
        """Whether no claim has lost anything, or so many were won whole since that it does not count any more."""
        return self._company < NEGLIGIBLE

    def hesitation(self, random: Random) -> float:
        """For how many seconds to leave what was signalled to others: none for a process that is alone."""
        return self._company * SIGNAL_SPREAD_SECONDS * random.random()

    def _is_mine(self, candidate: Candidate) -> bool:
        return self._workers[zlib.crc32(candidate.id.encode()) % len(self._workers)] == self._worker_id
