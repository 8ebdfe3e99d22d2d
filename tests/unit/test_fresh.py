"""How much is kept of jobs that were just stored, so that they need not be read: the newest, within a bound."""

from __future__ import annotations

import bson
import pytest
from hand_clock import HandClock
from wired_pool import waiting

from jobqueue.job import Job
from jobqueue.mongo.documents import to_document
from jobqueue.mongo.fresh import MOST_BYTES, MOST_JOBS, FreshJobs


def keep(fresh: FreshJobs, job: Job, *, size: int = 1) -> None:
    fresh.keep(job.id, bson.encode(to_document(job)), size=size)


@pytest.mark.parametrize(("count", "size"), [(MOST_JOBS + 1, 1), (2, MOST_BYTES)])
def test_of_more_than_is_kept_the_oldest_go(count: int, size: int) -> None:
    fresh, jobs = FreshJobs(HandClock()), waiting(count)

    for job in jobs:
        keep(fresh, job, size=size)

    assert fresh.take([jobs[0].id]) is None
    assert fresh.take([jobs[1].id])


def test_what_was_taken_or_stored_again_leaves_its_room() -> None:
    fresh, jobs = FreshJobs(HandClock()), waiting(3)

    for job in jobs:
        for _ in range(2):
            keep(fresh, job, size=MOST_BYTES)
        assert fresh.take([job.id])
