"""What end-to-end tests see from outside: answers over HTTP, and what the attempts themselves left behind."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from processes import ROOT

WITNESSED = str(ROOT / "tests" / "support" / "witnessed_tasks.py")
"""The module to give to `--tasks`."""


class Client:
    """Talks to one service."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def post(self, path: str, body: object = None) -> tuple[int, Any]:
        async with self._http.post(self.url + path, json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._http.get(self.url + path) as answer:
            return answer.status, await answer.json(content_type=None)

    async def bulk(self, jobs: list[dict[str, Any]]) -> list[str]:
        """Enqueue all of them; returns their ids."""
        status, body = await self.post("/jobs/bulk", jobs)
        assert status == 200, body
        assert body["rejected"] == 0, body
        return [item["id"] for item in body["items"]]

    async def jobs(self, ids: list[str]) -> list[dict[str, Any]]:
        return [(await self.get(f"/jobs/{job_id}"))[1] for job_id in ids]

    async def all_jobs(self) -> dict[str, dict[str, Any]]:
        """Every job there is, by its id, over all pages."""
        found: dict[str, dict[str, Any]] = {}
        path: str | None = "/jobs?limit=500"
        while path:
            async with self._http.get(self.url + path) as answer:
                assert answer.status == 200, await answer.text()
                found |= {job["id"]: job for job in await answer.json()}
                link = answer.links.get("next")
                path = link["url"].path_qs if link else None  # type: ignore[union-attr]
        return found


class Witness:
    """What the attempts themselves left behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end_of_holding = path.with_suffix(".let-go")

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def let_go(self) -> None:
        """Let every attempt of type `hold` end, now and from now on."""
        self.end_of_holding.touch()

    def began(self) -> Counter[str]:
        """How many attempts of each job began, in the order in which the first of them did."""
        return Counter(job_id for job_id, _, _, what in self.lines() if what == "began")

    async def sees(self, count: int, *, seconds: float = 30) -> None:
        """Wait until so many jobs have begun."""

        async def enough() -> bool:
            return len(self.began()) >= count

        await eventually(enough, seconds=seconds, what=f"{count} jobs have begun")

    def pids(self) -> Mapping[str, set[int]]:
        """In which processes each job began."""
        pids: defaultdict[str, set[int]] = defaultdict(set)
        for job_id, _, pid, _ in self.lines():
            pids[job_id].add(int(pid))
        return pids


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Awaitable[bool]], *, seconds: float, what: str) -> None:
    """Wait until the condition holds. What it asks is outside of this process, so it has to be asked again."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 (other processes set no events here)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
