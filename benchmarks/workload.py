"""The jobs that are measured with: as the service is given them, and as the documents that it makes of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from jobqueue.clock import Identifiers
from jobqueue.job import Job, Status
from jobqueue.mongo.documents import to_document
from jobqueue.service import NewJob

NOOP = "noop"
LEASE = timedelta(seconds=30)
BATCH = 1_000
"""Jobs of one `insert_many`, of one `enqueue_many`, and of one `POST /jobs/bulk`."""

Document = dict[str, Any]


def new_jobs(count: int, *, text: str | None = None) -> list[NewJob]:
    """No-op jobs as a client wants them: numbered, with a text to carry if one is given."""
    return [NewJob(type=NOOP, payload=_payload(number, text)) for number in range(count)]


def documents(count: int, *, now: datetime, text: str | None = None, first: int = 0) -> list[Document]:
    """The documents of such jobs, numbered from `first`, field for field what the service stores."""
    ids = Identifiers()
    return [
        to_document(
            Job(
                id=ids.job_id(now),
                type=NOOP,
                payload=_payload(first + number, text),
                run_at=now,
                created_at=now,
                updated_at=now,
                seq=ids.seq(now),
                insert_id=ids.token(),
            )
        )
        for number in range(count)
    ]


def finished_documents(count: int, *, now: datetime, first: int = 0) -> list[Document]:
    """Documents of jobs that were completed a minute ago, numbered from `first`."""
    then = now - timedelta(minutes=1)
    ended = {"status": Status.COMPLETED.value, "retryCount": 1, "startedAt": then, "finishedAt": then}
    outcome = {"lastOutcome": {"leaseId": "0" * 24, "kind": "complete"}}
    return [{**document, **ended, **outcome} for document in documents(count, now=then, first=first)]


def _payload(number: int, text: str | None) -> dict[str, Any]:
    return {"n": number} if text is None else {"n": number, "text": text}
