"""Time that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 2, 2, tzinfo=UTC)


class HandClock:
    """Time that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def surely_past(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return self.seconds
