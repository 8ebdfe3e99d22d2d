"""What is rare goes at once, what is frequent in step: bounds what hints cost without delaying the first ones."""

from __future__ import annotations

from jobqueue.clock import Clock


class Pace:
    """So many in a row whenever it has been quiet, otherwise one in so many seconds."""

    def __init__(self, seconds: float, *, burst: int, clock: Clock) -> None:
        self._seconds = seconds
        self._credit = (burst - 1) * seconds
        self._clock = clock
        self._paid_until = float("-inf")

    def reserve(self) -> float:
        """Count one more. Returns how many seconds it has to wait."""
        now = self._clock.monotonic()
        wait = max(0.0, self._paid_until - self._credit - now)
        self._paid_until = max(self._paid_until, now) + self._seconds
        return wait
