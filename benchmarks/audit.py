"""After each measurement: did every job run exactly once? A figure without that is no figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pymongo import AsyncMongoClient

from jobqueue.job import Status


class AuditFailed(Exception):
    """Jobs were lost, doubled, or not completed at their first attempt."""


async def audit_database(uri: str, database_name: str, *, completed: int, waiting: bool = False) -> None:
    """Raises `AuditFailed` unless so many jobs are completed, each at its first attempt, and no other is there, but
    for what waits and was never claimed where `waiting` allows that."""
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        fields = {"_id": 0, "status": 1, "retryCount": 1}
        found = await client[database_name].jobs.find({}, fields).to_list(None)
    states = Counter((job["status"], job["retryCount"]) for job in found)
    if waiting:
        del states[(Status.PENDING.value, 0)]
    if states != Counter({(Status.COMPLETED.value, 1): completed}):
        raise AuditFailed(f"of {completed} jobs: {dict(states)}")


def audit_no_second_run(numbers: Iterable[int]) -> None:
    """Raises `AuditFailed` if any job ran more than once, where not all were to run."""
    if doubled := [number for number, count in Counter(numbers).items() if count > 1]:
        raise AuditFailed(f"{len(doubled)} jobs ran more than once")


def audit_runs(numbers: Iterable[int], *, jobs: int) -> None:
    """Raises `AuditFailed` unless each of the jobs 0..jobs-1 ran once."""
    runs = Counter(numbers)
    if runs != Counter(range(jobs)):
        doubled = sum(count > 1 for count in runs.values())
        raise AuditFailed(f"of {jobs} jobs {len(runs)} ran, {doubled} of them more than once")
