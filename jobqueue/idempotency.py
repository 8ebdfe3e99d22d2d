"""Enqueueing the same thing twice by mistake: an idempotency key stands for one job as long as that job is kept.

The key is a field of the job's document and its unique index is the arbiter, so it holds whoever asks, in whatever
process. Beside it stands a fingerprint of what was asked for, so that another request with the same key is noticed.
The first answer is not stored: it is made again of the document and of the request, which is the same one. Here is
what of that is pure, and which keys this process is using for the first time right now.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic_core import to_jsonable_python

from jobqueue.errors import KeyInUse
from jobqueue.job import Job, Status

WAIT_SECONDS = 5.0
"""How long a request waits for the first one with its key."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job as it was when it was created; `replayed` when an earlier request had created it."""

    job: Job
    replayed: bool = False


def fingerprint_of(request: Mapping[str, object]) -> str:
    """A digest of what was asked for. Neither the order of keys nor the spacing in what was sent makes a difference."""
    text = json.dumps(to_jsonable_python(request), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def as_created(job: Job, *, run_at: datetime) -> Job:
    """The job as it was at its creation, when it was to run at `run_at`: none of its moves has happened."""
    return job.model_copy(
        update={
            "status": Status.SCHEDULED if run_at > job.created_at else Status.PENDING,
            "run_at": run_at,
            "retry_count": 0,
            "updated_at": job.created_at,
            "started_at": None,
            "finished_at": None,
            "lease": None,
            "cancel_requested_at": None,
            "errors": None,
            "result": None,
            "progress": None,
            "redrives": None,
            "last_outcome": None,
        }
    )


@dataclass(eq=False, slots=True)
class _Line:
    """Who came with one key: the first of them enqueues, the next one waits for it, and so on."""

    turn: asyncio.Lock
    came: int = 0
    job: Job | None = None


class FirstRequests:
    """The first requests with their keys that are under way in this process; others with the same key wait."""

    def __init__(self, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._lines: dict[str, _Line] = {}

    async def run(self, key: str, enqueue: Callable[[], Awaitable[Enqueued]]) -> Enqueued:
        """What `enqueue` answers, called by one at a time; those who waited share the answer of the first.

        When it fails they try in their turn. Raises what it raises, and `KeyInUse` after `wait_seconds`."""
        line = self._lines.setdefault(key, _Line(asyncio.Lock()))
        line.came += 1
        try:
            await self._wait(line, key)
            try:
                return await _enqueue_once(line, enqueue)
            finally:
                line.turn.release()
        finally:
            line.came -= 1
            # Whoever comes after the answer asks anew: the job may be gone by then.
            if (line.job is not None or not line.came) and self._lines.get(key) is line:
                del self._lines[key]

    async def _wait(self, line: _Line, key: str) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await line.turn.acquire()
        except TimeoutError:
            raise KeyInUse(key) from None


async def _enqueue_once(line: _Line, enqueue: Callable[[], Awaitable[Enqueued]]) -> Enqueued:
    if line.job is not None:
        return Enqueued(line.job, replayed=True)
    enqueued = await enqueue()
    line.job = enqueued.job
    return enqueued
