"""One api and some workers as real processes, which are killed and replaced while callers go on posting."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType
from typing import Any, Self

import aiohttp
from databases import DatabaseProcess, kept_port
from observers import WITNESSED
from processes import ServiceProcess, frozen

ANSWER_SECONDS = 15.0
CALLERS = 4
BATCH = 10
"""How many jobs a caller posts at once."""


class Fleet:
    """The processes. A killed one is replaced by a new one, the api on the same port."""

    def __init__(self, env: Mapping[str, str], *, workers: int) -> None:
        self._env = dict(env)
        self._worker_env = {name: value for name, value in env.items() if name != "JOBQUEUE_PORT"}
        self._count = workers

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._env["JOBQUEUE_PORT"] = str(stack.enter_context(kept_port()))
            self.api, self.workers = self._new_api(), [self._new_worker() for _ in range(self._count)]
            async with asyncio.TaskGroup() as group:
                for process in [self.api, *self.workers]:
                    group.create_task(stack.enter_async_context(process))
            self.url = self.api.url
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def replace_api(self) -> None:
        """kill -9, and a new one."""
        await self.api.kill()
        self.api = await self._stack.enter_async_context(self._new_api())

    async def replace_worker(self, index: int) -> None:
        """kill -9, and a new one."""
        await self.workers[index].kill()
        self.workers[index] = await self._stack.enter_async_context(self._new_worker())

    async def freeze_worker(self, index: int, *, seconds: float) -> None:
        async with frozen(self.workers[index]):
            await asyncio.sleep(seconds)

    def _new_api(self) -> ServiceProcess:
        return ServiceProcess("api", env=self._env)

    def _new_worker(self) -> ServiceProcess:
        return ServiceProcess("worker", "--tasks", WITNESSED, env=self._worker_env)


class Callers:
    """Posts jobs with ids of their own, several at a time, whatever happens to the service.

    Every other post that got no clear answer is repeated until there is one, as a careful client does; the others
    stay in doubt, as those of a client that gave up."""

    def __init__(self, url: str, random: Random, *, total: int, seconds: float = 0.0) -> None:
        """They are posted over about `seconds`, or as fast as they are taken."""
        self._url, self._random = url, random
        self._batches = iter([range(start, min(start + BATCH, total)) for start in range(0, total, BATCH)])
        self._pause_seconds = seconds * CALLERS * BATCH / total
        self.posted: set[str] = set()
        self.accepted: set[str] = set()
        self.statuses: list[int] = []

    @property
    def in_doubt(self) -> set[str]:
        """Posted, and never answered."""
        return self.posted - self.accepted

    async def run(self) -> None:
        """Post them all."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._post_batches(http))

    async def _post_batches(self, http: aiohttp.ClientSession) -> None:
        for numbers in self._batches:
            jobs = [self._job(number) for number in numbers]
            self.posted.update(job["id"] for job in jobs)
            await asyncio.sleep(self._pause_seconds)
            careful = self._random.random() < 0.5
            while not await self._post(http, jobs) and careful:  # noqa: ASYNC110 (that is how clients try again)
                await asyncio.sleep(0.2)

    def _job(self, number: int) -> dict[str, Any]:
        # Every fifth is long, so that every process that dies has some of them under way.
        seconds = 1.5 if number % 5 == 0 else round(self._random.random() * 0.1, 3)
        return {"id": f"job-{number}", "type": "work", "payload": {"seconds": seconds}}

    async def _post(self, http: aiohttp.ClientSession, jobs: list[dict[str, Any]]) -> bool:
        """Whether each of them has a clear answer."""
        try:
            async with http.post(self._url + "/jobs/bulk", json=jobs) as answer:
                self.statuses.append(answer.status)
                if answer.status != 200:
                    return False
                items = (await answer.json())["items"]
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        self.statuses += [item["status"] for item in items]
        # 409: it is there from a post whose answer did not arrive.
        there = {jobs[item["index"]]["id"] for item in items if item["status"] in (201, 409)}
        self.accepted |= there
        return len(there) == len(jobs)


class Accidents:
    """What happens to a fleet and its database, at random moments, by one seed."""

    def __init__(self, fleet: Fleet, database: DatabaseProcess | None, random: Random, *, lease_seconds: float) -> None:
        self._fleet, self._database, self._random, self._lease_seconds = fleet, database, random, lease_seconds
        self.happened: list[str] = []

    async def happen(self, names: list[str], *, apart_seconds: float) -> None:
        """These, in this order, a random pause after each."""
        for name in names:
            self.happened.append(name)
            await getattr(self, f"_{name}")()
            await asyncio.sleep(self._random.random() * apart_seconds)

    def shuffled(self, names: list[str]) -> list[str]:
        """The same in a random order."""
        return self._random.sample(names, len(names))

    async def _kill_worker(self) -> None:
        await self._fleet.replace_worker(self._any_worker())

    async def _kill_api(self) -> None:
        await self._fleet.replace_api()

    async def _freeze_worker(self) -> None:
        await self._fleet.freeze_worker(self._any_worker(), seconds=2.5 * self._lease_seconds)

    async def _kill_database(self) -> None:
        assert self._database is not None
        await self._database.kill()
        await asyncio.sleep(self._random.random() * self._lease_seconds)
        await self._database.start()

    async def _freeze_database(self) -> None:
        assert self._database is not None
        async with frozen(self._database):
            await asyncio.sleep(self._random.random() * 2 * self._lease_seconds)

    def _any_worker(self) -> int:
        return self._random.randrange(len(self._fleet.workers))
