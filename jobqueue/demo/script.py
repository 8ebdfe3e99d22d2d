"""What the demo does, step by step; each step shows what the service answered, and nothing that it did not."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from jobqueue.demo.client import Answer, Client, DemoFailed
from jobqueue.demo.screen import Screen
from jobqueue.demo.shop import CONFIRM, SHIP, Carrier
from jobqueue.demo.tally import Tally

MAX_PENDING = 40
"""How many jobs may wait in the demo's service."""
FLOOD = 3 * MAX_PENDING
SENDERS = 60
"""More than may wait, so that some are refused however fast the workers are."""
PRIORITIES = (0, 5, 10)
ORDER_42 = {"type": CONFIRM, "payload": "process-order-42", "idempotencyKey": "order-42", "priority": 5}
SETTLE_SECONDS = 15.0
LOOK_SECONDS = 0.25


class Script:
    """One performance."""

    def __init__(self, client: Client, screen: Screen, carrier: Carrier) -> None:
        self._client = client
        self._screen = screen
        self._carrier = carrier
        self._accepted: set[str] = set()
        self.refused = 0
        self.duplicates = 0

    async def play(self) -> tuple[Tally, Tally]:
        """From the first job to the last; returns what was counted here, and what the service counted.

        Raises `DemoFailed`."""
        orders, unstable, parcels = await self._seed()
        await self._repeat()
        await self._show_order(orders)
        await self._flood()
        await self._show_retries(unstable)
        await self._show_dead_letters(parcels)
        return await self._settle()

    async def _seed(self) -> tuple[list[str], list[str], list[str]]:
        orders = [{"type": CONFIRM, "payload": f"order-{n}", "priority": PRIORITIES[n % 3]} for n in range(10)]
        unstable = [{"type": "unstable-job", "priority": 10} for _ in range(2)]
        parcels = [{"type": SHIP, "payload": f"order-{n}", "priority": 5} for n in range(2)]
        ids = await self._client.enqueue_all([*orders, *unstable, *parcels])
        first = _expect(await self._client.post("/jobs", ORDER_42), 201)
        self._accepted.update([*ids, first["id"]])
        self._screen.say(f"{len(self._accepted)} jobs with priorities {PRIORITIES} are accepted")
        return ids[:10], ids[10:12], ids[12:]

    async def _repeat(self) -> None:
        again = _expect(await self._client.post("/jobs", ORDER_42), 409)
        self.duplicates += 1
        self._screen.say(f"the same idempotency key again: refused with 409, since job {again['jobId']} has it")

    async def _show_order(self, orders: list[str]) -> None:
        begun: defaultdict[str, list[int]] = defaultdict(list)
        for job in [await self._client.finished(job_id) for job_id in orders]:
            begun[job["startedAt"]].append(job["priority"])
        groups = [sorted(begun[moment], reverse=True) for moment in sorted(begun)]
        shown = " | ".join(" ".join(str(priority) for priority in group) for group in groups)
        self._screen.say(f"higher priorities were begun first (| divides what was claimed at once): {shown}")

    async def _flood(self) -> None:
        self._screen.say(f"a flood of {FLOOD} jobs, where no more than {MAX_PENDING} may wait")
        numbers = iter(range(FLOOD))
        await asyncio.gather(*(self._send(numbers) for _ in range(SENDERS)))
        if not self.refused:
            raise DemoFailed("the flood was taken without a refusal")
        self._screen.say(f"back-pressure refused {self.refused} posts with 503; repeated after Retry-After, all got in")

    async def _send(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            job = {"type": CONFIRM, "payload": f"flood-{number}"}
            while (answer := await self._client.post("/jobs", job)).status == 503:
                self.refused += 1
                await asyncio.sleep(answer.retry_after_seconds)
            self._accepted.add(_expect(answer, 201)["id"])

    async def _show_retries(self, unstable: list[str]) -> None:
        jobs = [await self._client.finished(job_id) for job_id in unstable]
        attempts = " and ".join(str(job["retryCount"]) for job in jobs)
        self._screen.say(f"jobs that fail twice: {jobs[0]['status']} on attempt {attempts}, with back-off between them")

    async def _show_dead_letters(self, parcels: list[str]) -> None:
        for job_id in parcels:
            await self._client.finished(job_id)
        dead = await self._client.get("/dlq")
        first = dead["jobs"][0]
        reason = first["errors"][-1]["message"]
        self._screen.say(f"{dead['count']} dead letters, each after {first['retryCount']} attempts: {reason}")
        self._carrier.is_there = True
        requeued = _expect(await self._client.post(f"/dlq/{parcels[0]}/retry"), 202)
        job = await self._client.finished(requeued["jobId"])
        failures = len(job["errors"])
        self._screen.say(f"the carrier is back, one is redriven: {job['status']}, its {failures} failures are kept")

    async def _settle(self) -> tuple[Tally, Tally]:
        """What was counted here and there, when every job has ended and both are the same, or the time is over."""
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while True:
            here = Tally.of_jobs(len(self._accepted), await self._client.jobs())
            there = Tally.of_metrics(await self._client.metrics())
            settled = here.all_ended and here == there
            if settled or asyncio.get_running_loop().time() > deadline:
                return here, there
            await asyncio.sleep(LOOK_SECONDS)


def _expect(answer: Answer, status: int) -> Any:
    if answer.status != status:
        raise DemoFailed(f"answered with {answer.status} instead of {status}: {answer.body}")
    return answer.body
