"""The same numbers, counted twice: from the jobs as the demo's client sees them, and by the service's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How it went."""

    accepted: int
    completed: int
    dead_letters: int
    retried: int
    idempotency_keys: int

    @property
    def all_ended(self) -> bool:
        """Whether every job that was accepted has come to an end; none is lost then."""
        return self.accepted == self.completed + self.dead_letters

    @classmethod
    def of_jobs(cls, accepted: int, jobs: Iterable[Mapping[str, Any]]) -> Tally:
        """Of so many jobs that were accepted, and all the jobs there are."""
        jobs = list(jobs)
        return cls(
            accepted=accepted,
            completed=sum(job["status"] == "completed" for job in jobs),
            dead_letters=sum(job["status"] == "failed" for job in jobs),
            retried=sum(_retries(job) for job in jobs),
            idempotency_keys=sum("idempotencyKey" in job for job in jobs),
        )

    @classmethod
    def of_metrics(cls, metrics: Mapping[str, int]) -> Tally:
        """Of what `/metrics` tells."""
        in_the_end = metrics["processed"] + metrics["dlq_size"]
        return cls(
            accepted=in_the_end + metrics["queue_depth"] + metrics["in_progress"],
            completed=metrics["processed"],
            dead_letters=metrics["dlq_size"],
            retried=metrics["retried"],
            idempotency_keys=metrics["idempotency_keys"],
        )


def _retries(job: Mapping[str, Any]) -> int:
    """How many attempts of a job were tried again: all that failed, but those after which it was a dead letter."""
    deaths = job.get("redrives", 0) + (job["status"] == "failed")
    return len(job.get("errors", ())) - int(deaths)
