"""Documents of jobs as they were stored a moment ago, so that whoever claims them need not read them.

A claim reads what it has won, since in between the job may have been run by somebody else. One that was just stored by
this process, or came with the change stream, need not be read if the claim itself makes sure that it still is what it
was: the same `insertId`, and never claimed. What only a person in mongosh could have changed is believed for
`BELIEVED_SECONDS` after the job was made; one that was heard of late (the process was frozen) is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import bson

from jobqueue.clock import Clock
from jobqueue.job import Job, JobId
from jobqueue.mongo.documents import CODEC, Unreadable, read_document

BELIEVED_SECONDS = 1.0
MOST_JOBS = 2_000
MOST_BYTES = 32 << 20
"""What is kept at most; the oldest go first."""

KeptDocument = bytes | Mapping[str, Any]
"""One as it was sent, or as it was heard of. Neither is shared with anybody: a task may change its payload."""


class _Kept(NamedTuple):
    document: KeptDocument
    size: int
    until: float


class FreshJobs:
    """What is known of jobs that nobody has claimed yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[JobId, _Kept] = {}
        self._bytes = 0

    def keep(self, job_id: JobId, document: KeptDocument, *, size: int) -> None:
        """This one was stored just now; `size` is how many bytes it may take."""
        self._drop(job_id)
        self._kept[job_id] = _Kept(document, size, self._clock.monotonic() + BELIEVED_SECONDS)
        self._bytes += size
        while len(self._kept) > MOST_JOBS or self._bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))

    def take(self, job_ids: Sequence[JobId]) -> Sequence[Job] | None:
        """These jobs, which are forgotten here; None when one of them is not known, or not fresh any more."""
        now = self._clock.monotonic()
        kept = [self._drop(job_id) for job_id in job_ids]
        fresh = [each.document for each in kept if each is not None and each.until >= now]
        if len(fresh) < len(job_ids):
            return None
        jobs = [_read(document) for document in fresh]
        oldest = self._clock.now() - timedelta(seconds=BELIEVED_SECONDS)
        known = [job for job in jobs if job is not None and job.insert_id is not None and job.created_at >= oldest]
        return known if len(known) == len(job_ids) else None

    def _drop(self, job_id: JobId) -> _Kept | None:
        kept = self._kept.pop(job_id, None)
        if kept is not None:
            self._bytes -= kept.size
        return kept


def _read(document: KeptDocument) -> Job | None:
    try:
        return read_document(bson.decode(document, CODEC) if isinstance(document, bytes) else document)
    except Unreadable:
        return None  # the claim will read it, and deal with it
