"""Live processes, as the store lists them."""

from __future__ import annotations

from datetime import UTC, datetime

from jobqueue.job import WorkerId
from jobqueue.repository import WorkerRecord


def worker_record(
    name: str, *, queues: str = "*", slots: int = 1, at: datetime = datetime(2026, 2, 2, tzinfo=UTC)
) -> WorkerRecord:
    """One that runs nothing just now, and showed itself at that time."""
    return WorkerRecord(
        id=WorkerId(name),
        host="example",
        pid=1,
        version="1",
        queues=[queues],
        slots=slots,
        running=[],
        started_at=at,
        heartbeat_at=at,
    )
