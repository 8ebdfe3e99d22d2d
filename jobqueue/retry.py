"""When a failed attempt is tried again: exponential back-off with jitter, capped. Pure.

The jitter is "equal": half of the delay is fixed and half is random, so that jobs which failed together
do not come back together and none comes back at once (Marc Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from jobqueue.job import LAST_INSTANT, Backoff, to_milliseconds

MAX_DOUBLINGS = 60
"""2**60 seconds is beyond every cap; a larger exponent would only risk overflow."""

LONGEST_SECONDS = 100 * 365 * 86_400.0
"""What a document made by hand may say at most."""


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The first delay, doubled with each further attempt, and the longest one; both in seconds."""

    base_seconds: float = 1.0
    max_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Raises `ValueError`."""
        if not 0 <= self.base_seconds <= self.max_seconds < float("inf"):
            raise ValueError(f"a back-off is from 0 or more seconds up to as many or more, not {self}")

    def with_own(self, own: Backoff | None) -> BackoffPolicy:
        """The policy of a job: its own back-off, and this policy for what that leaves out. Where only the first delay
        is its own, and is beyond the longest one of this policy, the longest one is as long."""
        if own is None:
            return self
        base = self.base_seconds if own.base_seconds is None else _bounded(own.base_seconds)
        if own.max_seconds is None:
            return BackoffPolicy(base, max(base, self.max_seconds))
        longest = _bounded(own.max_seconds)
        return BackoffPolicy(min(base, longest), longest)


def delay_seconds(attempt: int, policy: BackoffPolicy, *, random: Random) -> float:
    """Seconds to wait after the `attempt`-th attempt failed; attempts count from 1."""
    doublings = min(max(attempt - 1, 0), MAX_DOUBLINGS)
    full: float = min(policy.max_seconds, policy.base_seconds * 2**doublings)
    return full / 2 + random.random() * full / 2


def next_run_at(now: datetime, attempt: int, policy: BackoffPolicy, *, random: Random) -> datetime:
    """When to run again after the `attempt`-th attempt failed at `now`."""
    delay = timedelta(seconds=delay_seconds(attempt, policy, random=random))
    return to_milliseconds(min(now + delay, LAST_INSTANT))


def _bounded(seconds: float) -> float:
    # Documents may be made by hand, with numbers that no back-off can have.
    return min(max(0.0, seconds), LONGEST_SECONDS)
