"""What resolvers work with. Looks at the store that come at the same time are made together, and the same one once.

The loaders keep nothing: a later look, in the same operation or on the same websocket, sees the store anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import strawberry
from strawberry.dataloader import DataLoader

from jobqueue.api.answers import MAX_PAGE_BYTES
from jobqueue.api.handlers import Api
from jobqueue.job import Job, Status
from jobqueue.repository import JobFilter, Page
from jobqueue.service import JobService


@dataclass(frozen=True, slots=True)
class Listing:
    """A page that is wanted: the newest `limit` jobs in one of `statuses`, from just before `before`."""

    which: JobFilter
    statuses: Sequence[Status | None]
    before: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class Context:
    """The service, and the loaders in front of it."""

    api: Api
    jobs: DataLoader[str, Job | None] = field(init=False)
    pages: DataLoader[Listing, Page] = field(init=False)
    counts: DataLoader[None, Mapping[Status, int]] = field(init=False)

    def __post_init__(self) -> None:
        loaders = Loaders(self.service)
        object.__setattr__(self, "jobs", DataLoader(loaders.load_jobs, cache=False))
        object.__setattr__(self, "pages", DataLoader(loaders.load_pages, cache=False))
        object.__setattr__(self, "counts", DataLoader(loaders.load_counts, cache=False))

    @property
    def service(self) -> JobService:
        return self.api.service


Info: TypeAlias = strawberry.Info[Context, None]


class Loaders:
    """For several keys at once: one call of the service, or one for each key that is different."""

    def __init__(self, service: JobService) -> None:
        self._service = service

    async def load_jobs(self, ids: Sequence[str]) -> Sequence[Job | None]:
        found = await self._service.get_many(set(ids))
        return [found.get(job_id) for job_id in ids]

    async def load_counts(self, keys: Sequence[None]) -> Sequence[Mapping[Status, int]]:
        return [await self._service.count_by_status()] * len(keys)

    async def load_pages(self, listings: Sequence[Listing]) -> Sequence[Page | BaseException]:
        different = list(dict.fromkeys(listings))
        pages = await asyncio.gather(*map(self._list, different), return_exceptions=True)
        found = dict(zip(different, pages, strict=True))
        return [found[listing] for listing in listings]

    async def _list(self, listing: Listing) -> Page:
        pages = await asyncio.gather(
            *(
                self._service.list(
                    replace(listing.which, status=status),
                    before=listing.before,
                    limit=listing.limit,
                    max_bytes=MAX_PAGE_BYTES,
                )
                for status in listing.statuses
            )
        )
        return merge(pages, limit=listing.limit)


def merge(pages: Sequence[Page], *, limit: int) -> Page:
    """One page of several that began at the same place. It ends where the first of them did: what comes behind
    may lack jobs. Jobs that share a `seq` stay together, since the next page begins behind it."""
    ends = [page.next_before for page in pages if page.next_before is not None]
    end = max(ends, default=None)
    jobs = sorted(
        (job for page in pages for job in page.jobs if end is None or job.seq >= end), key=lambda job: -job.seq
    )
    if len(jobs) <= limit:
        return Page(jobs, end)
    last = jobs[limit - 1].seq
    kept = [job for job in jobs if job.seq >= last]
    return Page(kept, last if len(kept) < len(jobs) else end)
