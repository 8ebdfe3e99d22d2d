"""The audit after a storm: what was accepted is finished, and what the attempts did is explained by the documents.

It reads the database itself and the witness file, not what the service says about itself.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from observers import Witness, eventually
from pymongo import MongoClient
from pymongo.errors import PyMongoError

FINISHED = ("completed", "failed", "cancelled")
DATABASE = "jobqueue"


@dataclass
class Audit:
    """One look at everything. `problems` is empty when every promise was kept."""

    jobs: Mapping[str, Mapping[str, Any]]
    accepted: Collection[str]
    in_doubt: Collection[str]
    witness: Witness
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._ended: set[tuple[str, int, int]] = set()
        for job_id, attempt, pid, what in self.witness.lines():
            if what == "began":
                self._began[job_id][int(attempt)] += 1
            else:
                self._ended.add((job_id, int(attempt), int(pid)))
        self._check_ids()
        for job in self.jobs.values():
            self._check(job)

    @property
    def repeated(self) -> int:
        """How many attempts began beyond the first of each job."""
        return sum(sum(numbers.values()) - 1 for numbers in self._began.values())

    def figures(self) -> dict[str, int]:
        """What a report says about it."""
        return {
            "accepted": len(self.accepted),
            "in doubt": len(self.in_doubt),
            "completed": sum(job["status"] == "completed" for job in self.jobs.values()),
            "failed": sum(job["status"] == "failed" for job in self.jobs.values()),
            "attempts beyond the first": self.repeated,
            "problems": len(self.problems),
        }

    def _check_ids(self) -> None:
        self._expect(not set(self.accepted) - set(self.jobs), "accepted and gone", set(self.accepted) - set(self.jobs))
        unknown = set(self.jobs) - set(self.accepted) - set(self.in_doubt)
        self._expect(not unknown, "there, but never posted", unknown)
        ghosts = set(self._began) - set(self.jobs)
        self._expect(not ghosts, "run, but not there", ghosts)

    def _check(self, job: Mapping[str, Any]) -> None:
        job_id, count = job["_id"], job["retryCount"]
        self._expect(job["status"] in FINISHED, "not finished", job)
        self._expect("lease" not in job, "finished under a lease", job)
        self._expect(count <= job["maxRetries"], "more attempts than allowed", job)
        beyond = [number for number in self._began[job_id] if not 1 <= number <= count]
        self._expect(not beyond, f"attempts {beyond} began that do not count", job)
        twice = [number for number, times in self._began[job_id].items() if times > 1]
        self._expect(not twice, f"attempts {twice} began twice", job)
        self._check_history(job)

    def _check_history(self, job: Mapping[str, Any]) -> None:
        """Each attempt that counts either failed, which `errors` says, or is the one that completed the job."""
        explained = [error["attempt"] for error in job.get("errors", [])]
        if job["status"] == "completed":
            result = job["result"]
            explained.append(result["attempt"])
            mark = (job["_id"], result["attempt"], result["pid"])
            self._expect(mark in self._ended, "completed by an attempt that did not end", job)
        self._expect(explained == list(range(1, job["retryCount"] + 1)), f"its history is {explained}", job)

    def _expect(self, holds: bool, what: str, about: object) -> None:
        if not holds:
            self.problems.append(f"{what}: {str(about)[:600]}")


async def finished_jobs(
    uri: str, accepted: Collection[str], *, seconds: float, name: str = DATABASE
) -> dict[str, dict[str, Any]]:
    """Wait until nothing waits or runs any more, then every document. However slow the machine is, some job has to
    finish every so many seconds."""
    left = math.inf

    async def fewer_are_left() -> bool:
        nonlocal left
        before, now = left, await asyncio.to_thread(_unfinished, uri, name)
        left = now if 0 <= now < before else before
        return left < before

    while left:
        what = f"one of the unfinished jobs finished: {left} are left of {len(accepted)} that were accepted"
        await eventually(fewer_are_left, seconds=seconds, what=what)
    return await asyncio.to_thread(read_jobs, uri, name)


def read_jobs(uri: str, name: str = DATABASE) -> dict[str, dict[str, Any]]:
    """Every document by its id."""
    with MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
        return {job["_id"]: job for job in client[name]["jobs"].find()}


def _unfinished(uri: str, name: str) -> int:
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=2000) as client:
        try:
            return client[name]["jobs"].count_documents({"status": {"$in": ["pending", "scheduled", "processing"]}})
        except PyMongoError:
            return -1


def assert_clean(audit: Audit) -> None:
    """Fail with the first few problems."""
    shown = "\n".join(audit.problems[:5])
    assert not audit.problems, f"{len(audit.problems)} problems, of which the first:\n{shown}"
