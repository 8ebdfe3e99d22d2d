"""What the engine tells whoever watches it: plain calls with what is at hand, a few for each job.

The engine knows only `Observer`. Its methods are called on the event loop, in the middle of the work, so they must
neither block nor fail; `prometheus.py` has the one that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jobqueue.job import Job


class Observer(Protocol):
    """Is told what happens."""

    def enqueued(self, jobs: Sequence[Job]) -> None:
        """These jobs were stored."""
        ...

    def claimed(self, *, asked: int, won: int) -> None:
        """A claim was answered."""
        ...

    def started(self, job: Job) -> None:
        """An attempt begins; `job` is as its claim left it."""
        ...

    def ended(self, job: Job, outcome: str, seconds: float) -> None:
        """The outcome of an attempt that took so long is written. `outcome` is one of a handful of words."""
        ...

    def lease_lost(self, job: Job) -> None:
        """An attempt ended without an outcome, since its lease is another's."""
        ...

    def leases_expired(self, *, requeued: int, failed: int, cancelled: int) -> None:
        """The attempts of silent workers were taken back."""
        ...

    def wrote_batch(self, kind: str, items: int) -> None:
        """So many items went into one write. `kind` is one of a handful of words."""
        ...


class Unobserved:
    """The observer of an engine that nobody watches."""

    def enqueued(self, jobs: Sequence[Job]) -> None: ...

    def claimed(self, *, asked: int, won: int) -> None: ...

    def started(self, job: Job) -> None: ...

    def ended(self, job: Job, outcome: str, seconds: float) -> None: ...

    def lease_lost(self, job: Job) -> None: ...

    def leases_expired(self, *, requeued: int, failed: int, cancelled: int) -> None: ...

    def wrote_batch(self, kind: str, items: int) -> None: ...


UNOBSERVED = Unobserved()
