"""From "stored" to "at hand": the ids this process could claim next, in claim order.

The order is strict as of the last look at the store. `ReadyQueue` keeps a *horizon*: it knows every pending
job that sorts before it, and nothing about those behind. A job offered locally is taken in only when it sorts
before the horizon; one behind it is in the store anyway, where a later look will find it in its turn. After a
look that left nothing behind, the horizon is open and every local job is taken without another look.
"""

from __future__ import annotations

import bisect
from collections.abc import Container, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, Protocol

from jobqueue.clock import Clock
from jobqueue.job import Candidate, Job, JobId
from jobqueue.repository import JobRepository, Window


class Dispatcher(Protocol):
    """Where the service hands over jobs that are stored. Never blocks, never fails, may do nothing: what is
    not taken here is found in the store."""

    @property
    def has_workers(self) -> bool:
        """Whether jobs that are offered are run by this process, as far as it has slots for them."""
        ...

    def offer(self, jobs: Sequence[Job]) -> None:
        """These jobs were just stored; those that are due may be run at once."""
        ...

    def offer_candidates(self, candidates: Sequence[Candidate]) -> None:
        """These jobs were there already, and just became pending."""
        ...

    def interrupt(self, job_id: JobId) -> None:
        """This running job was asked to stop; if it runs here, stop it now."""
        ...


class SignallingDispatcher:
    """The dispatcher of a process without workers: those of other processes hear of jobs as they are stored."""

    has_workers = False

    def __init__(self, jobs: JobRepository, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock

    def offer(self, jobs: Sequence[Job]) -> None:
        """They tell of themselves."""

    def offer_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Signal them."""
        if candidates:
            self._jobs.signal(candidates, at=self._clock.now())

    def interrupt(self, job_id: JobId) -> None:
        """Nothing runs here; the worker learns of it when it renews its lease."""


class Busy:
    """Jobs that were taken out of the queue and are not done with yet; as a container, what a look is to pass over.

    A look takes a while, and shows the store as it was at some moment of it. What was done with here in the meantime
    may still look as if it waited: claims of it would lose, as if others were at the same jobs. It is passed over too,
    until the look is over; what waits again since then has another time, and is not taken for it. What a claim did not
    win that was sent before the look began is not passed over: whoever had it may have given it back by then."""

    def __init__(self) -> None:
        self._ids: set[JobId] = set()
        self._taken: set[JobId] = set()
        self._done: set[Candidate] = set()
        self._looking = False

    def __contains__(self, candidate: Any) -> bool:
        return candidate.id in self._ids or candidate in self._done

    @property
    def ids(self) -> Set[JobId]:
        """Those that were taken and are not done with."""
        return self._ids

    def take(self, candidates: Iterable[Candidate]) -> None:
        """From now on these are claimed, run, or waited for here."""
        taken = [candidate.id for candidate in candidates]
        self._ids.update(taken)
        if self._looking:
            self._taken.update(taken)

    def finish(self, jobs: Iterable[Job]) -> None:
        """What became of these is written: they do not wait any more, or for another time."""
        if self._looking:
            self._done.update(Candidate.of(job) for job in jobs)

    def leave(self, job: Job) -> None:
        """This one is not run here any more. If it was not finished here, it may wait again."""
        self._ids.discard(job.id)

    def lose(self, candidates: Sequence[Candidate]) -> None:
        """Others have these."""
        self.put_back(candidates)
        self._done.update(candidate for candidate in candidates if candidate.id in self._taken)

    def put_back(self, candidates: Iterable[Candidate]) -> None:
        """Nothing became of taking these: they wait as before."""
        self._ids.difference_update(candidate.id for candidate in candidates)

    @contextmanager
    def look(self) -> Iterator[None]:
        """A look at the store lasts as long as this block."""
        self._looking = True
        try:
            yield
        finally:
            self._looking = False
            self._taken.clear()
            self._done.clear()


class ReadyQueue:
    """Candidates in claim order, bounded, correct up to its horizon."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sorted: list[Candidate] = []
        self._ids: set[JobId] = set()
        self._horizon: Candidate | None = None
        self._open = False

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def complete(self) -> bool:
        """Whether every pending job, as of the last look, is at hand."""
        return self._open

    @property
    def horizon(self) -> Candidate | None:
        """Where the last look ended; None when it left nothing behind, or when there was none."""
        return self._horizon

    def offer(self, candidates: Iterable[Candidate]) -> bool:
        """Take in what sorts before the horizon. Returns whether all of it was taken."""
        return all([self._insert(candidate) for candidate in candidates])

    def look(self, window: Window, *, from_head: bool, busy: Container[Candidate] = ()) -> int:
        """Take in what a look at the store found, from its head or from the old horizon on; jobs that are
        `busy` here already are passed over. Returns how many were not at hand before."""
        last = window.candidates[-1] if window.candidates else self._horizon
        self._open, self._horizon = window.complete, None if window.complete else last
        if from_head and not window.complete:
            self._drop_beyond(last)
        known = len(self._sorted)
        self.offer(candidate for candidate in window.candidates if candidate not in busy)
        return len(self._sorted) - known

    def take(self, count: int) -> list[Candidate]:
        """Remove and return the first `count`."""
        taken = self._sorted[:count]
        del self._sorted[:count]
        self._ids.difference_update(candidate.id for candidate in taken)
        return taken

    def clear(self) -> None:
        """Forget everything: nothing is known until the next look."""
        self._sorted.clear()
        self._ids.clear()
        self._open, self._horizon = False, None

    def _insert(self, candidate: Candidate) -> bool:
        if candidate.id in self._ids:
            return True
        if not self._open and (self._horizon is None or candidate > self._horizon):
            return False
        bisect.insort(self._sorted, candidate)
        self._ids.add(candidate.id)
        return len(self._sorted) <= self._capacity or self._evict_last() != candidate

    def _evict_last(self) -> Candidate:
        evicted = self._sorted.pop()
        self._ids.remove(evicted.id)
        # Everything before the evicted one is still known without gaps.
        self._open = False
        self._horizon = self._sorted[-1]
        return evicted

    def _drop_beyond(self, last: Candidate | None) -> None:
        # Behind the new horizon there may be gaps, so what was known there must not be claimed any more.
        keep = bisect.bisect_right(self._sorted, last) if last is not None else 0
        self._ids.difference_update(candidate.id for candidate in self._sorted[keep:])
        del self._sorted[keep:]
