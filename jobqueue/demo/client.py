"""What the demo asks of the service, over HTTP as any client would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp

from jobqueue.errors import JobQueueError

Json = dict[str, Any]

WAIT_SECONDS = 20
PAGE = 500


class DemoFailed(JobQueueError):
    """The service did not do what the demo is to show."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    retry_after_seconds: int


class Client:
    """Talks to one service."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        """The base URL is that of the session."""
        self._http = http

    async def post(self, path: str, body: object = None) -> Answer:
        """Post JSON, or nothing; whatever the answer is, it is returned."""
        async with self._http.post(path, json=body) as answer:
            retry_after = int(answer.headers.get("Retry-After", 0))
            return Answer(answer.status, await answer.json(content_type=None), retry_after)

    async def get(self, path: str) -> Any:
        """Raises `DemoFailed` for anything but 200."""
        async with self._http.get(path) as answer:
            if answer.status != 200:
                raise DemoFailed(f"GET {path} was answered with {answer.status}: {await answer.text()}")
            return await answer.json()

    async def enqueue_all(self, jobs: list[Json]) -> list[str]:
        """Enqueue all of these in one request; returns their ids. Raises `DemoFailed` when one is refused."""
        answer = await self.post("/jobs/bulk", jobs)
        if answer.status != 200 or answer.body["rejected"]:
            raise DemoFailed(f"POST /jobs/bulk was answered with {answer.status}: {answer.body}")
        return [item["id"] for item in answer.body["items"]]

    async def finished(self, job_id: str) -> Json:
        """A job as soon as it is finished. Raises `DemoFailed` when that takes too long."""
        job: Json = await self.get(f"/jobs/{job_id}?wait={WAIT_SECONDS}")
        if "finishedAt" not in job:
            raise DemoFailed(f"the job {job_id} is {job['status']} after {WAIT_SECONDS} seconds")
        return job

    async def jobs(self) -> list[Json]:
        """The newest jobs, as many as fit on a page."""
        jobs: list[Json] = await self.get(f"/jobs?limit={PAGE}")
        return jobs

    async def metrics(self) -> Json:
        """The totals of the service."""
        metrics: Json = await self.get("/metrics")
        return metrics
