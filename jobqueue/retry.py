"""When a failed attempt is tried again: exponential back-off with jitter, capped. Pure.

The jitter is "equal": half of the delay is fixed and half is random, so that jobs which failed together
do not come back together and none comes back at once (Marc Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from jobqueue.job import LAST_INSTANT, to_milliseconds

MAX_DOUBLINGS = 60
"""2**60 seconds is beyond every cap; a larger exponent would only risk overflow."""


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The first delay, doubled with each further attempt, never more than the last; both in seconds."""

    base_seconds: float = 1.0
    max_seconds: float = 300.0


def delay_seconds(attempt: int, policy: BackoffPolicy, *, random: Random) -> float:
    """Seconds to wait after the `attempt`-th attempt failed; attempts count from 1."""
    doublings = min(max(attempt - 1, 0), MAX_DOUBLINGS)
    full: float = min(policy.max_seconds, policy.base_seconds * 2**doublings)
    return full / 2 + random.random() * full / 2


def next_run_at(now: datetime, attempt: int, policy: BackoffPolicy, *, random: Random) -> datetime:
    """When to run again after the `attempt`-th attempt failed at `now`."""
    delay = timedelta(seconds=delay_seconds(attempt, policy, random=random))
    return to_milliseconds(min(now + delay, LAST_INSTANT))
