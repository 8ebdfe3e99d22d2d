"""The logs of jobs: one document for each job that logged, `{_id: job id, lines, bytes, n, expiresAt}`.

Appending keeps the newest lines and counts bytes; a document that has grown beyond its bytes is cut right after, by
whoever sees it so, unless it was appended to meanwhile (`n`). So it is within its bounds but for one batch. It goes
with its job; `expiresAt` is for what a crash left behind in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError

from jobqueue.batching import BatchLimits, GroupCommit
from jobqueue.clock import Clock
from jobqueue.errors import JobQueueError, Unavailable
from jobqueue.job import MAX_LOG_BYTES, MAX_LOG_LINES, LogLine
from jobqueue.log_lines import line_bytes
from jobqueue.mongo.calls import CLIENT_SECONDS, unavailable
from jobqueue.mongo.documents import json_safe, plain
from jobqueue.mongo.store import MAX_IDS, Store, chunks

WHAT = "keep the log of the job"
LIMITS = BatchLimits(items=500, bytes=4 << 20, in_flight=1, waiting_items=10_000, waiting_bytes=16 << 20)

Answer = JobQueueError | None


@dataclass(frozen=True, slots=True)
class _Lines:
    job_id: str
    lines: Sequence[LogLine]
    size: int


class JobLogs:
    """The verbs about logs."""

    def __init__(self, store: Store, clock: Clock, *, kept: timedelta, limits: BatchLimits = LIMITS) -> None:
        """`kept` is how long after its last line a log lasts that nobody deletes."""
        self._store = store
        self._clock = clock
        self._kept = kept
        self._commit = GroupCommit[_Lines, Answer](self._flush, name="logs", limits=limits)

    async def append(self, job_id: str, lines: Sequence[LogLine]) -> None:
        """Raises `Unavailable`, `QueueFull`; then the lines may be lost, since writing them again could double them."""
        size = sum(line_bytes(line) for line in lines)
        await self._commit.submit(_Lines(job_id, lines, size), size=size)

    async def read(self, job_id: str) -> Sequence[LogLine]:
        """The lines of a job, the oldest first; what people mistyped there is left out."""
        document = await self._read_one(job_id)
        return _readable(document["lines"]) if document is not None else []

    async def forget(self, job_ids: Sequence[Any]) -> None:
        """The jobs are gone."""
        for ids in chunks(job_ids, MAX_IDS):
            await self._delete(ids)

    async def aclose(self) -> None:
        """Write what waits."""
        await self._commit.aclose()

    async def _flush(self, batch: Sequence[_Lines]) -> Sequence[Answer]:
        self._store.observer.wrote_batch("logs", len(batch))
        answers: list[Answer] = [None] * len(batch)
        try:
            await self._push(batch)
        except BulkWriteError as error:
            refused = [write_error["index"] for write_error in error.details["writeErrors"]]
            for place in refused or range(len(batch)):
                answers[place] = Unavailable(f"cannot {WHAT}: MongoDB refused it")
        except PyMongoError as error:
            return [unavailable(WHAT, error)] * len(batch)
        # What is not cut now is cut after the next append.
        with contextlib.suppress(PyMongoError):
            await self._cut([one.job_id for one in batch])
        return answers

    async def _cut(self, job_ids: Sequence[str]) -> None:
        for document in await self._find_too_long(job_ids):
            lines, size = _newest(_readable(document["lines"]))
            await self._replace(document, lines, size)

    async def _push(self, batch: Sequence[_Lines]) -> None:
        # job_logs: append, the newest stay
        expires_at = self._clock.now() + self._kept
        writes = [
            UpdateOne(
                {"_id": one.job_id},
                {
                    "$push": {"lines": {"$each": _documents(one.lines), "$slice": -MAX_LOG_LINES}},
                    "$inc": {"bytes": one.size, "n": 1},
                    "$max": {"expiresAt": expires_at},
                },
                upsert=True,
            )
            for one in batch
        ]
        await self._store.calls.attempt(
            lambda: self._store.job_logs.bulk_write(writes, ordered=False), seconds=CLIENT_SECONDS
        )

    async def _find_too_long(self, job_ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        # read: which of these logs have more bytes than are kept
        query = {"_id": {"$in": list(job_ids)}, "bytes": {"$gt": MAX_LOG_BYTES}}
        found: Sequence[Mapping[str, Any]] = await self._store.calls.attempt(
            lambda: self._store.job_logs.find(query, **self._store.by_id).to_list(None), seconds=CLIENT_SECONDS
        )
        return found

    async def _replace(self, document: Mapping[str, Any], lines: Sequence[LogLine], size: int) -> None:
        # job_logs: the newest lines stay, only while nothing was appended
        query = {"_id": document["_id"], "n": document["n"]}
        update = {"$set": {"lines": _documents(lines), "bytes": size}}
        await self._store.calls.attempt(
            lambda: self._store.job_logs.update_one(query, update, **self._store.by_id), seconds=CLIENT_SECONDS
        )

    async def _read_one(self, job_id: str) -> Mapping[str, Any] | None:
        # read: the log of one job
        found: Mapping[str, Any] | None = await self._store.calls.run(
            "read the log of the job", lambda: self._store.job_logs.find_one({"_id": job_id})
        )
        return found

    async def _delete(self, job_ids: Sequence[Any]) -> None:
        # job_logs: gone with their jobs
        query = {"_id": {"$in": list(job_ids)}}
        await self._store.calls.run(
            "delete logs of jobs", lambda: self._store.job_logs.delete_many(query, **self._store.by_id)
        )


def _documents(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    return [line.model_dump(by_alias=True) for line in lines]


def _readable(stored: Any) -> list[LogLine]:
    lines = []
    for one in stored if isinstance(stored, list) else ():
        try:
            lines.append(LogLine.model_validate(plain(one) | {"fields": json_safe(one.get("fields", {}))}))
        except (ValidationError, TypeError, AttributeError):
            continue
    return lines


def _newest(lines: Sequence[LogLine]) -> tuple[Sequence[LogLine], int]:
    """The newest lines that fit, and their bytes."""
    size = 0
    for count, line in enumerate(reversed(lines)):
        more = size + line_bytes(line)
        if more > MAX_LOG_BYTES:
            return lines[len(lines) - count :], size
        size = more
    return lines, size
