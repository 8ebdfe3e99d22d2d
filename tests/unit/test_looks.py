"""Looks at single jobs that go together, when the database does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from pymongo.errors import AutoReconnect

from jobqueue.clock import ServerClock
from jobqueue.errors import Unavailable
from jobqueue.job import Job
from jobqueue.mongo.calls import Calls
from jobqueue.mongo.pages import Pages
from jobqueue.mongo.store import Store


class Collection:
    """Answers every look, or loses the connection at each."""

    def __init__(self) -> None:
        self.lost = True
        self.looks = 0

    async def find_one(self, query: Mapping[str, Any]) -> Mapping[str, Any]:
        [found] = await self._answer([query["_id"]])
        return found

    def find(self, query: Mapping[str, Any]) -> Any:
        return SimpleNamespace(to_list=lambda _: self._answer(query["_id"]["$in"]))

    async def _answer(self, job_ids: list[str]) -> list[Mapping[str, Any]]:
        self.looks += 1
        await asyncio.sleep(0)
        if self.lost:
            raise AutoReconnect("lost (injected)")
        return [{"_id": job_id} for job_id in job_ids]


async def test_a_look_that_fails_fails_for_all_who_asked_and_for_nobody_after_them() -> None:
    collection = Collection()
    pages = Pages(cast(Store, SimpleNamespace(jobs=collection, calls=Calls(4))), ServerClock())

    answers = await asyncio.gather(*(pages.get(job_id) for job_id in "abc"), return_exceptions=True)

    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert collection.looks == 1
    collection.lost = False
    again = await asyncio.gather(*(pages.get(job_id) for job_id in "abca"), return_exceptions=True)
    assert [answer.id for answer in again if isinstance(answer, Job)] == ["a", "b", "c", "a"]
    assert collection.looks == 2
