"""How long something took, and what it cost: on a noisy machine the CPU time says more than the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from benchmarks.machine import process_cpu_seconds


class Stopwatch:
    """A context manager. CPU time is that of this process; `others` are measured beside it, each by its id."""

    def __init__(self, *others: int | None) -> None:
        self._others = [pid for pid in others if pid is not None]
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.other_cpu_seconds = 0.0

    def __enter__(self) -> Self:
        self._other_cpu = self._cpu_of_others()
        self._cpu = time.process_time()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu_seconds = time.process_time() - self._cpu
        self.other_cpu_seconds = self._cpu_of_others() - self._other_cpu

    def per(self, count: int) -> dict[str, float]:
        """Rate and CPU for each of `count` things that were done; the others' CPU as `server_cpu_us`."""
        return {
            "per_second": round(count / self.seconds, 1),
            "cpu_us": round(1e6 * self.cpu_seconds / count, 1),
            "server_cpu_us": round(1e6 * self.other_cpu_seconds / count, 1),
        }

    def _cpu_of_others(self) -> float:
        return sum(process_cpu_seconds(pid) for pid in self._others)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds, by nearest rank."""
    ordered = sorted(seconds)
    return {
        f"p{rank}_ms": round(1000 * ordered[max(0, math.ceil(len(ordered) * rank / 100) - 1)], 3)
        for rank in (50, 95, 99)
    }
