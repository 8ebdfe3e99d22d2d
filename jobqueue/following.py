"""Following jobs while they move: one watcher for the whole process, not a poll for each client.

A job that ends in this process tells its followers at once. For everything else one task reads the revisions of
all that is followed, in one query, and only while somebody follows. A follower is told *that* its job changed and
reads the job itself; changes that come faster than the watcher looks are told as one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from jobqueue.errors import QueueFull, ShuttingDown, Unavailable
from jobqueue.repository import JobRepository, Revision

LOOK_SECONDS = 0.5
MAX_FOLLOWERS = 1_000


class Follower:
    """One who follows one job."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._ended = False

    async def changed(self) -> None:
        """Return when the job may have changed since the last return. Raises `ShuttingDown`."""
        await self._told.wait()
        self._told.clear()
        if self._ended:
            raise ShuttingDown

    def tell(self) -> None:
        """The job changed, or is gone."""
        self._told.set()

    def end(self) -> None:
        """Nothing is told any more."""
        self._ended = True
        self._told.set()


class Followers:
    """Who follows which job."""

    def __init__(self, jobs: JobRepository) -> None:
        self._jobs = jobs
        self._following: defaultdict[str, set[Follower]] = defaultdict(set)
        self._seen: dict[str, Revision | None] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @contextlib.contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        """Follow a job while the context is open. What the job looks like after this was entered is not missed.

        Raises `QueueFull` when too many follow, `ShuttingDown`."""
        if self._closed:
            raise ShuttingDown
        if sum(map(len, self._following.values())) >= MAX_FOLLOWERS:
            raise QueueFull("too many clients follow jobs here")
        follower = Follower()
        self._following[job_id].add(follower)
        # Nobody knows what this follower is about to read, so the next look tells it in any case.
        self._seen.pop(job_id, None)
        self._watch()
        try:
            yield follower
        finally:
            self._forget(job_id, follower)

    def moved(self, job_id: str) -> None:
        """This job moved, here and now."""
        for follower in self._following.get(job_id, ()):
            follower.tell()

    def end_all(self) -> None:
        """Tell everybody that this was all, and let nobody follow again."""
        self._closed = True
        for followers in self._following.values():
            for follower in followers:
                follower.end()
        if self._watcher is not None:
            self._watcher.cancel()

    def _forget(self, job_id: str, follower: Follower) -> None:
        self._following[job_id].discard(follower)
        if not self._following[job_id]:
            del self._following[job_id]
            self._seen.pop(job_id, None)

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._look_while_followed(), name="followers")

    async def _look_while_followed(self) -> None:
        while self._following:
            await asyncio.sleep(LOOK_SECONDS)
            # MongoDB being away is no reason to stop following; what changed meanwhile is told when it is back.
            with contextlib.suppress(Unavailable):
                await self._look(list(self._following))

    async def _look(self, job_ids: Sequence[str]) -> None:
        revisions = await self._jobs.revisions(job_ids)
        for job_id in job_ids:
            revision = revisions.get(job_id)
            if job_id in self._following and (job_id not in self._seen or self._seen[job_id] != revision):
                self._seen[job_id] = revision
                self.moved(job_id)
