"""`python -m simulated.run [--seed N | --seconds S]`: replay one seed, or try fresh ones for a while.

Ends with 1 when a seed broke a promise; that seed is printed with the end of its history."""

from __future__ import annotations

import argparse
import time
from random import SystemRandom

from simulated.world import Run, simulate

FRESH_SEEDS = 10**9
LINES = 80


def main() -> int:
    """Returns the exit code."""
    arguments = _arguments()
    if arguments.seed is not None:
        return _tell(simulate(arguments.seed))
    until, first, count = time.monotonic() + arguments.seconds, SystemRandom().randrange(FRESH_SEEDS), 0
    while time.monotonic() < until:
        run = simulate(first + count)
        count += 1
        if run.violations:
            return _tell(run)
    print(f"{count} seeds from {first} on, no promise broken")
    return 0


def _tell(run: Run) -> int:
    if run.violations:
        print(run.report(LINES))
        print(f"\nto see it again: make simulate SEED={run.scenario.seed}")
        return 1
    print(f"seed {run.scenario.seed}: no promise broken, {len(run.history.records)} records, {run.history.digest()}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try fresh seeds")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
