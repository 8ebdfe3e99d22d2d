"""From what a client sent to what the service is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from jobqueue.api.schemas import NewJobBody
from jobqueue.job import Backoff, Fault
from jobqueue.service import NewJob

GIVEN: dict[str, Any] = {
    "type": "mail",
    "payload": {"to": "a"},
    "id": "a-1",
    "queue": "q",
    "priority": 7,
    "maxRetries": 5,
    "runAt": "2026-02-02T05:30:00Z",
    "timeoutSeconds": 1.5,
    "tags": ["t"],
    "backoff": {"baseSeconds": 2},
    "fault": {"failures": 1},
    "idempotencyKey": "k",
}

ASKED = NewJob(
    type="mail",
    payload={"to": "a"},
    id="a-1",
    queue="q",
    priority=7,
    max_retries=5,
    run_at=datetime(2026, 2, 2, 5, 30, tzinfo=UTC),
    timeout_seconds=1.5,
    tags=["t"],
    backoff=Backoff(base_seconds=2.0),
    fault=Fault(failures=1),
    idempotency_key="k",
)


@pytest.mark.parametrize("seed", range(5))
def test_each_field_of_a_body_is_that_of_the_new_job_in_whatever_order_they_come(seed: int) -> None:
    fields = list(GIVEN.items())
    Random(seed).shuffle(fields)

    assert NewJobBody.read(dict(fields)).to_new_job() == ASKED


def test_what_a_body_leaves_out_is_as_a_new_job_has_it() -> None:
    assert NewJobBody.read({"type": "mail", "delaySeconds": 3}).to_new_job() == NewJob(type="mail", delay_seconds=3)
    assert tuple(NewJobBody.model_fields) == NewJob._fields[: len(NewJobBody.model_fields)]
