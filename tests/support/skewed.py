"""Runs a program with a wrong clock: `python skewed.py FILE PROGRAM ARGUMENTS...`.

FILE says by how many seconds `time.time` is to be wrong, and may be changed while the program runs, which is a step
of its clock. Only that clock is moved: it is the one that `ServerClock` takes its time from.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOK_AGAIN_SECONDS = 0.05


def skewed(file: Path, real: Callable[[], float]) -> Callable[[], float]:
    """The clock that is wrong by what the file says."""
    offset, looked_at = 0.0, float("-inf")

    def now() -> float:
        nonlocal offset, looked_at
        if time.monotonic() - looked_at > LOOK_AGAIN_SECONDS:
            looked_at = time.monotonic()
            offset = float(file.read_text() or 0)
        return real() + offset

    return now


if __name__ == "__main__":
    offset_file, *sys.argv = sys.argv[1:]
    time.time = skewed(Path(offset_file), time.time)
    runpy.run_path(sys.argv[0], run_name="__main__")
