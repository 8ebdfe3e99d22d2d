"""Every peer in turn, in each round: `python -m benchmarks peers`. What cannot be measured here is told, never won."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.peers.entries import entries

JOBS = 5_000
FEWEST_JOBS = 300


async def run(bench: Bench) -> None:
    """All of them, then all of them again."""
    options = ["--jobs", str(bench.size(JOBS, FEWEST_JOBS)), "--seconds", str(bench.size(20, 5))]
    for repeat in bench.rounds():
        for entry in entries():
            with bench.case(entry.case, repeat=repeat) as line:
                line |= await entry.measure(bench, options)
