"""What happened: every write as the server applied it, every attempt as its task saw it, every answer as its
caller got it, every fault. The invariants are checked on this and on nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from simulated.documents import Document


@dataclass(eq=False, slots=True)
class Write:
    """One document before and after one statement. None: it was not there."""

    at: float
    server_time: datetime
    process: str
    link: str
    job_id: str
    before: Document | None
    after: Document | None
    rolled_back: bool = False

    def __str__(self) -> str:
        back = "  ROLLED BACK" if self.rolled_back else ""
        return f"{self.process}/{self.link} writes {self.job_id}: {difference(self.before, self.after)}{back}"


@dataclass(eq=False, slots=True)
class Event:
    """Anything else that is worth knowing."""

    at: float
    process: str
    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{self.process} {self.kind} {told}"


class History:
    """All of it, in order."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.records: list[Write | Event] = []
        self.closed = False

    def add(self, process: str, kind: str, **fields: Any) -> None:
        """Note an event."""
        if not self.closed:
            self.records.append(Event(self._time(), process, kind, fields))

    def wrote(self, write: Write) -> None:
        """Note a write."""
        if not self.closed:
            self.records.append(write)

    def events(self, *kinds: str) -> list[Event]:
        """The events of these kinds."""
        return [record for record in self.records if isinstance(record, Event) and record.kind in kinds]

    def writes(self) -> list[Write]:
        """The writes that lasted."""
        return [record for record in self.records if isinstance(record, Write) and not record.rolled_back]

    def lines(self) -> list[str]:
        """All of it, readable."""
        return [f"{record.at:10.4f}  {record}" for record in self.records]

    def tail(self, *, job_id: str | None, count: int) -> str:
        """The last lines; when a job is named, the last of those that speak of it."""
        lines = [line for line in self.lines() if job_id is None or job_id in line]
        return "\n".join(lines[-count:])

    def digest(self) -> str:
        """Equal for equal histories."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()[:16]


def difference(before: Document | None, after: Document | None) -> str:
    """What a write changed, in one line."""
    if before is None or after is None:
        return "insert " + _shown(after or {}) if after is not None else "delete"
    changed = {name: after[name] for name in after if after[name] != before.get(name)}
    gone = [name for name in before if name not in after]
    moved = f"{before['status']} -> {after['status']} " if before.get("status") != after.get("status") else ""
    return f"{moved}{_shown(changed)}{' -' + ' -'.join(gone) if gone else ''}"


def _shown(fields: Mapping[str, Any]) -> str:
    hidden = {"updatedAt", "payload", "seq", "status", "createdAt", "_id"}
    return " ".join(f"{name}={_short(value)}" for name, value in fields.items() if name not in hidden)


def _short(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%H:%M:%S.%f")[:-3]
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}:{_short(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{len(value)} of them, last {_short(value[-1])}]" if value else "[]"
    return str(value)
