"""What is compared, and how one of it is measured: in its own environment, by a trial in a process of its own.

Redis is measured as it comes and with `appendfsync always`; the others are durable as they come. JOBQUEUE_BENCH_ONLY
names the peers to measure, separated by commas.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.database import URI_VARIABLE
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import ENVIRONMENTS
from benchmarks.processes import ROOT
from benchmarks.results import Line

LONGEST_TRIAL_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer with its settings."""

    peer: str
    durable: bool
    with_result: bool

    @property
    def case(self) -> str:
        """How the results file calls it."""
        redis = PEERS[self.peer].backend == "redis"
        settings = (["appendfsync always"] if redis and self.durable else []) + (
            ["results"] if self.with_result else []
        )
        return f"{self.peer} ({', '.join(settings)})" if settings else self.peer

    async def measure(self, bench: Bench, options: Sequence[str], environment: Mapping[str, str] = {}) -> Line:
        """The figures of one trial with these variables set, or why there are none."""
        known: Line = {"peer": self.peer, "durable": self.durable, "with_result": self.with_result}
        return known | await self._try(bench, options, environment)

    async def _try(self, bench: Bench, options: Sequence[str], environment: Mapping[str, str]) -> Line:
        python = _python_of(self.peer)
        if not python.exists():
            return {"not_measured": f"its environment is missing ({python}): python -m benchmarks setup"}
        settings = ["--durable"] * self.durable + ["--with-result"] * self.with_result
        trial = await asyncio.create_subprocess_exec(
            *(str(python), "-m", "benchmarks.peers.trial", self.peer, *settings, *options),
            cwd=ROOT,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT), URI_VARIABLE: bench.database.uri},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(trial.communicate(), LONGEST_TRIAL_SECONDS)
        except TimeoutError:
            trial.terminate()
            await trial.wait()
            return {"not_measured": f"not done within {LONGEST_TRIAL_SECONDS:g} s"}
        if trial.returncode:
            return {"not_measured": errors.decode(errors="replace").strip().splitlines()[-1][-300:]}
        figures: Line = json.loads(output.decode().strip().splitlines()[-1])
        return (
            figures | ({} if figures["backend"] else {"backend": bench.database.server}) | _durability(bench, figures)
        )


def entries() -> Iterator[Entry]:
    """What is compared."""
    only = [name for name in os.environ.get("JOBQUEUE_BENCH_ONLY", "").split(",") if name]
    for name, kind in PEERS.items():
        if only and name not in only:
            continue
        for durable in (False, True) if kind.backend == "redis" else (True,):
            for with_result in (False, True) if kind.keeps_results else (False,):
                yield Entry(name, durable, with_result)


def _durability(bench: Bench, figures: Line) -> Line:
    return {} if figures["durability"] else {"durability": bench.database.durability}


def _python_of(peer: str) -> Path:
    environment = PEERS[peer].environment
    return ENVIRONMENTS[environment].python if environment else Path(sys.executable)
