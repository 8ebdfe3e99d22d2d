"""What a person sees of the demo: lines as things happen, and statistics that live below them on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from jobqueue.demo.tally import Tally

PLAIN_EVERY_SECONDS = 1.0
SHOWN = {
    "queue_depth": "waiting",
    "in_progress": "running",
    "processed": "completed",
    "retried": "tried again",
    "dlq_size": "dead letters",
}
ROWS = {
    "accepted": "jobs accepted",
    "completed": "of them completed",
    "dead_letters": "of them dead letters",
    "retried": "attempts tried again",
    "idempotency_keys": "idempotency keys",
}


class Screen:
    """Writes to a console. On a terminal the statistics stay in one place; elsewhere they are lines, one a second."""

    def __init__(self, console: Console, *, max_pending: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._max_pending = max_pending
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._monotonic = monotonic
        self._began = monotonic()
        self._shown_at = float("-inf")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Tell of something that happened."""
        self._console.print(f"{self._seconds():5.1f} s  {text}", markup=False, soft_wrap=True)

    def show(self, metrics: Mapping[str, int]) -> None:
        """Show the statistics as they are now."""
        if self._live is not None:
            self._live.update(self._table(metrics), refresh=True)
        elif self._seconds() - self._shown_at >= PLAIN_EVERY_SECONDS:
            self._shown_at = self._seconds()
            self.say("-- " + ", ".join(f"{metrics[name]} {label}" for name, label in SHOWN.items()))

    def summarise(self, here: Tally, there: Tally, *, duplicates: int, refused: int) -> None:
        """The end: both counts side by side, and what was refused."""
        table = Table(title="What happened", title_justify="left")
        table.add_column("")
        table.add_column("counted here", justify="right")
        table.add_column("by /metrics", justify="right")
        for name, label in ROWS.items():
            table.add_row(label, str(getattr(here, name)), str(getattr(there, name)))
        self._console.print(table)
        self._console.print(
            f"Refused: {duplicates} duplicate with 409, {refused} posts with 503 by back-pressure."
            f" It took {self._seconds():.0f} seconds.",
            highlight=False,
            soft_wrap=True,
        )

    def _seconds(self) -> float:
        return self._monotonic() - self._began

    def _table(self, metrics: Mapping[str, int]) -> Table:
        table = Table.grid(padding=(0, 2))
        waiting = metrics["queue_depth"]
        for name, label in SHOWN.items():
            bar = ProgressBar(total=self._max_pending, completed=waiting, width=40) if name == "queue_depth" else ""
            table.add_row(label, str(metrics[name]), bar)
        return table
