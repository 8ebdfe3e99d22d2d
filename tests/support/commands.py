"""What this process sends to the database, counted: costs can be held to a bound without a clock.

The listener hears every client that is made after this module was imported.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pymongo import monitoring


class Command(NamedTuple):
    """One command: its name, the collection it is about, all of it, and when it was sent, in seconds."""

    name: str
    collection: str
    body: Mapping[str, Any]
    at: float

    @property
    def filters(self) -> list[Mapping[str, Any]]:
        """The filter of a find, or of each update in it."""
        if self.name == "update":
            return [update["q"] for update in self.body["updates"]]
        return [self.body.get("filter", {})]


class CommandCounter(monitoring.CommandListener):
    """Keeps what is sent to one database (and `hello` to the server) while somebody wants it."""

    def __init__(self) -> None:
        self._wanted = False
        self._heard: list[Command] = []
        self._lock = threading.Lock()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self._wanted:
            about = event.command.get(event.command_name)
            with self._lock:
                command = Command(event.command_name, str(about), dict(event.command), at=time.monotonic())
                self._heard.append(command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    @contextmanager
    def listening(self) -> Iterator[list[Command]]:
        """What is sent within the block."""
        heard: list[Command] = []
        self._heard = heard
        self._wanted = True
        try:
            yield heard
        finally:
            self._wanted = False


def by_name(commands: list[Command]) -> Counter[str]:
    """How many of each."""
    return Counter(command.name for command in commands)


LISTENER = CommandCounter()
monitoring.register(LISTENER)
