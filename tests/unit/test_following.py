"""Followers are told of changes by one watcher, which looks at all their jobs at once and only while they follow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from jobqueue import following
from jobqueue.errors import QueueFull, ShuttingDown, Unavailable
from jobqueue.following import Follower, Followers
from jobqueue.job import Status
from jobqueue.repository import JobRepository, Revision

START = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)
PATIENCE = 30.0


class Revisions:
    """What the watcher sees, and what it asked for."""

    def __init__(self) -> None:
        self.of: dict[str, Revision] = {}
        self.asked: list[list[str]] = []
        self.away = False
        self.looked = asyncio.Event()

    def move(self, job_id: str) -> None:
        self.of[job_id] = Revision(Status.PROCESSING, START + timedelta(milliseconds=len(self.asked) + 1))

    async def revisions(self, job_ids: Collection[str]) -> Mapping[str, Revision]:
        self.asked.append(sorted(job_ids))
        self.looked.set()
        if self.away:
            raise Unavailable("gone for a moment")
        return {job_id: self.of[job_id] for job_id in job_ids if job_id in self.of}

    async def next_look(self) -> None:
        self.looked.clear()
        async with asyncio.timeout(PATIENCE):
            await self.looked.wait()


@pytest.fixture
def revisions(monkeypatch: pytest.MonkeyPatch) -> Revisions:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    return Revisions()


@pytest.fixture
def followers(revisions: Revisions) -> Followers:
    return Followers(cast(JobRepository, revisions))


async def told(follower: Follower) -> None:
    async with asyncio.timeout(PATIENCE):
        await follower.changed()


async def quiet(follower: Follower, revisions: Revisions) -> bool:
    """Whether the follower is told nothing by the next two looks."""
    telling = asyncio.create_task(follower.changed())
    await revisions.next_look()
    await revisions.next_look()
    telling.cancel()
    return (await asyncio.gather(telling, return_exceptions=True))[0] is not None


async def test_the_first_look_tells_in_any_case_and_later_ones_only_of_changes(
    followers: Followers, revisions: Revisions
) -> None:
    revisions.move("a")
    with followers.follow("a") as follower:
        await told(follower)
        assert await quiet(follower, revisions)
        revisions.move("a")
        await told(follower)


async def test_a_job_that_is_gone_is_a_change(followers: Followers, revisions: Revisions) -> None:
    revisions.move("a")
    with followers.follow("a") as follower:
        await told(follower)
        del revisions.of["a"]
        await told(follower)


async def test_one_who_comes_later_is_told_though_nothing_changed_since_the_last_look(
    followers: Followers, revisions: Revisions
) -> None:
    revisions.move("a")
    with followers.follow("a") as first:
        await told(first)
        with followers.follow("a") as second:
            await told(second)


async def test_all_jobs_are_looked_at_at_once_and_none_when_nobody_follows(
    followers: Followers, revisions: Revisions
) -> None:
    with followers.follow("a"), followers.follow("b"), followers.follow("a"):
        await revisions.next_look()
        assert revisions.asked[-1] == ["a", "b"]
    watcher = followers._watcher
    assert watcher is not None
    async with asyncio.timeout(PATIENCE):
        await watcher

    assert followers._seen == {}


async def test_a_change_while_the_database_was_away_is_told_when_it_is_back(
    followers: Followers, revisions: Revisions
) -> None:
    revisions.move("a")
    with followers.follow("a") as follower:
        await told(follower)
        revisions.away = True
        revisions.move("a")
        await revisions.next_look()
        revisions.away = False
        await told(follower)


async def test_at_the_end_everybody_is_told_and_nobody_may_follow_again(
    followers: Followers, revisions: Revisions
) -> None:
    with followers.follow("a") as follower:
        followers.end_all()
        with pytest.raises(ShuttingDown):
            await told(follower)
    with pytest.raises(ShuttingDown), followers.follow("a"):
        pass


async def test_more_than_a_bound_may_not_follow(
    followers: Followers, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_FOLLOWERS", 1)
    with followers.follow("a"), pytest.raises(QueueFull), followers.follow("b"):
        pass
    with followers.follow("b"):
        pass
    followers.end_all()
