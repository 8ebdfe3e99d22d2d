"""Time that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 2, 2, tzinfo=UTC)


class HandClock:
    """Time that is moved by hand: `seconds` have passed since the start."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self.seconds = 0.0

    def move(self, by: timedelta) -> None:
        """Let so much time pass."""
        self.seconds += by.total_seconds()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds)

    def surely_past(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return self.seconds
