"""What jobs leave behind when they run: 24 bytes each in a file in memory, whatever process, thread or fork runs them.

That costs a microsecond or two, the same for every system that is measured, and asks nothing of the database under
test. The size of the file is the number of runs. Standard library only: peers write here from environments of theirs.
"""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

VARIABLE = "JOBQUEUE_BENCH_WITNESS"
STALL_SECONDS = 30.0
WARM_UP = -1
"""The number of the job by which it is seen that a worker is up."""

_FORMAT = struct.Struct("<qdd")
_descriptor: int | None = None


class Run(NamedTuple):
    """One run of a job; times are of the wall clock, in seconds."""

    number: int
    enqueued_at: float
    ran_at: float


def record(payload: dict[str, float]) -> None:
    """Leave behind that the job with this payload (`n`, and `t` if its time matters) runs now."""
    global _descriptor
    if _descriptor is None:
        _descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_descriptor, _FORMAT.pack(int(payload["n"]), payload.get("t", 0.0), time.time()))


def memory_folder() -> str:
    """Where files live in memory, if that is known."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


class Witness:
    """The file of one stretch of work. Set `VARIABLE` to `path` for the processes that run its jobs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.runs"
        self.path.touch()

    def count(self) -> int:
        """How many runs there were, the warm-up included."""
        return self.path.stat().st_size // _FORMAT.size

    def runs(self) -> list[Run]:
        """Every run but the warm-up."""
        runs = (Run(*fields) for fields in _FORMAT.iter_unpack(self.path.read_bytes()))
        return [run for run in runs if run.number != WARM_UP]

    def audit(self, jobs: int) -> dict[str, int]:
        """How many of the jobs 0..jobs-1 never ran, and how many runs there were too many. Both are to be 0."""
        counts = Counter(run.number for run in self.runs())
        return {"lost": jobs - len(counts), "doubled": counts.total() - len(counts)}

    async def wait(self, runs: int, *, seconds: float) -> bool:
        """Whether so many runs were there before the time was over, or nothing moved any more."""
        end = time.monotonic() + seconds
        seen, moved_at = 0, time.monotonic()
        while (count := self.count()) < runs:
            now = time.monotonic()
            if count != seen:
                seen, moved_at = count, now
            if now > end or now - moved_at > STALL_SECONDS:
                return False
            await asyncio.sleep(0.005)
        return True
