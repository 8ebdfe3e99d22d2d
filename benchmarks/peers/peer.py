"""What a peer has to say for itself; everything that is measured is done through it, in `trial.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from benchmarks.witness import record

Payload = dict[str, float]
Way = Callable[[Sequence[Payload]], Awaitable[None]]
"""A way to enqueue many."""


class Peer:
    """One library, as its documentation says to use it. A fresh one for each store; never reused."""

    environment: ClassVar[str] = "redis8"
    packages: ClassVar[Sequence[str]] = ()
    """What it is made of; the first is the peer itself."""
    backend: ClassVar[str] = "redis"
    at_once: ClassVar[Sequence[int]] = (100, 200, 400)
    """How many jobs it may be set to run at once; the first is what it is measured with, the final tries them all."""
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {"": {}}
    """What else the final tries, by name: variables of the environment."""
    unit: ClassVar[str] = "asyncio tasks"
    polls: ClassVar[bool] = False
    """Whether its worker looks for jobs now and then, and is not told of them."""
    keeps_results: ClassVar[bool] = True
    acknowledges: ClassVar[bool] = True
    """Whether a job outlives the worker that had begun it."""

    def __init__(self, url: str, *, concurrency: int, with_result: bool) -> None:
        self.url = url
        self.concurrency = concurrency
        self.with_result = with_result

    async def prepare(self) -> None:
        """Make what a fresh store needs."""

    async def open(self) -> None:
        """Connect the producer."""

    async def close(self) -> None:
        """Disconnect the producer."""

    async def one(self, payload: Payload) -> None:
        """The ordinary enqueue of one job."""
        raise NotImplementedError

    def ways(self) -> Mapping[str, Way]:
        """Ways to enqueue many; all are measured, and the fastest counts."""
        return {"100 at a time, concurrently": concurrently(self.one)}

    async def unfinished(self) -> int | None:
        """How many jobs the store does not know to be done; None where it never learns that."""
        return None

    def work(self) -> None:
        """Be the worker, by the library's own entry point, until SIGTERM."""
        raise NotImplementedError

    def do(self, payload: Payload) -> Any:
        """The job: leave behind that it ran; with a result of its own, if that is asked for."""
        record(payload)
        return {"n": payload["n"]} if self.with_result else None


def concurrently(one: Callable[[Payload], Awaitable[None]], *, size: int = 100) -> Way:
    """Many calls of the ordinary enqueue at a time."""

    async def way(payloads: Sequence[Payload]) -> None:
        for part in runs_of(payloads, size):
            await asyncio.gather(*(one(payload) for payload in part))

    return way


def in_bulk(many: Callable[[Sequence[Payload]], Any], *, size: int) -> Way:
    """The library's own call for many jobs, which may be a coroutine or not."""

    async def way(payloads: Sequence[Payload]) -> None:
        for part in runs_of(payloads, size):
            result = many(part)
            if asyncio.iscoroutine(result):
                await result

    return way


def in_threads(one: Callable[[Payload], Any], *, threads: int = 8) -> Way:
    """Many threads, each with the ordinary enqueue."""

    async def way(payloads: Sequence[Payload]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            shares = [payloads[start::threads] for start in range(threads)]
            list(pool.map(lambda share: [one(payload) for payload in share], shares))

    return way


def runs_of(payloads: Sequence[Payload], size: int) -> list[Sequence[Payload]]:
    """The payloads in runs of at most `size`."""
    return [payloads[start : start + size] for start in range(0, len(payloads), size)]
