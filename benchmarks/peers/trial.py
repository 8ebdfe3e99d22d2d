"""One peer, measured: `python -m benchmarks.peers.trial NAME --jobs N`, in the peer's own environment. Prints one line.

One process produces (this one), one worker process runs, and the server is a child of this process. Phases, each on an
empty store: enqueue one after another; enqueue many, in each way that the peer has; drain (the jobs wait, one worker
starts; "settled" is when the store knows all to be done); end to end (the worker is up and idle before the first
enqueue); pick-up (an idle worker, a job every 20 ms). With `--end-to-end WAY` only that, enqueued in this way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.backends import BACKENDS, Backend, start, stop
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.peer import Payload, Peer, Way, runs_of
from benchmarks.stopwatch import percentiles
from benchmarks.witness import VARIABLE, WARM_UP, Witness, memory_folder

ONE_BY_ONE = "one by one"
SETTLE_SECONDS = 10.0
SECOND_RUNS_SECONDS = 0.3
"""After the last run: time for a job to be run again, if that is to happen."""
IDLE_SECONDS = 1.0
PICKUP_EVERY_SECONDS = 0.02
PICKUPS = 200
CALIBRATION_JOBS = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked of a peer. A slow one gets fewer jobs, so that a phase takes about `seconds`."""

    jobs: int
    seconds: float
    concurrency: int
    with_result: bool


class Trial:
    """All phases of one peer."""

    def __init__(self, name: str, plan: Plan, backend: Backend, folder: Path, memory: Path) -> None:
        self._name, self._plan, self._backend = name, plan, backend
        self._folder, self._memory = folder, memory
        self._figures: dict[str, Any] = {}
        self.lost = self.doubled = 0

    async def run(self) -> dict[str, Any]:
        """The figures."""
        way = self._way(await self._enqueueing())
        count = await self._affordable(way)
        await self._drain(count, way, phase="drain")
        await self._end_to_end(count, way)
        await self._pickup()
        return {"jobs": count, **self._figures, "lost": self.lost, "doubled": self.doubled}

    async def run_end_to_end(self, way: str) -> dict[str, Any]:
        """The figures of that phase alone."""
        await self._end_to_end(self._plan.jobs, self._way(way))
        return {"jobs": self._plan.jobs, **self._figures, "lost": self.lost, "doubled": self.doubled}

    async def _enqueueing(self) -> str:
        """Measure each way; returns the fastest."""
        async with self._producer() as peer:
            names = [ONE_BY_ONE, *peer.ways()]
        rates = {name: await self._rate_of(name) for name in names}
        best = max(rates, key=lambda name: rates[name])
        self._figures |= {"enqueue_one_per_second": rates[ONE_BY_ONE], "enqueue_many_per_second": rates[best]}
        self._figures |= {"best_way": best, "enqueue_by_way": rates}
        return best

    async def _rate_of(self, name: str) -> float:
        async with self._producer():
            way, done = self._way(name), 0
            await way(numbered(min(self._plan.jobs, 100)))  # connections, scripts, plans
            began = time.perf_counter()
            for part in runs_of(numbered(self._plan.jobs), 1_000 if name != ONE_BY_ONE else 50):
                await way(part)
                done += len(part)
                if time.perf_counter() - began > self._plan.seconds / 4:
                    break
            return round(done / (time.perf_counter() - began), 1)

    async def _affordable(self, way: Way) -> int:
        few = min(self._plan.jobs, CALIBRATION_JOBS)
        rate = await self._drain(few, way, phase=None)
        return max(few, min(self._plan.jobs, int(rate * self._plan.seconds)))

    async def _drain(self, count: int, way: Way, *, phase: str | None) -> float:
        async with self._producer() as peer:
            await way(numbered(count))
            witness = Witness(self._memory, f"drain{count}{phase}")
            with self._worker(peer, witness):
                await self._ran(witness, count)
                settled_at = await self._settled(peer)
                await asyncio.sleep(SECOND_RUNS_SECONDS)
            times = [run.ran_at for run in witness.runs()]
        ran = self.judge(witness, count)
        rate = ran / max(1e-9, max(times) - min(times))
        if phase:
            settled = ran / (settled_at - min(times)) if settled_at else None
            self._figures["drain_per_second"] = round(rate, 1)
            self._figures["settled_per_second"] = settled and round(settled, 1)
        return rate

    async def _end_to_end(self, count: int, way: Way) -> None:
        async with self._producer() as peer:
            witness = Witness(self._memory, "e2e")
            with self._worker(peer, witness):
                await self._is_up(peer, witness)
                began = time.time()
                await way(numbered(count))
                await self._ran(witness, count + 1)
                await asyncio.sleep(SECOND_RUNS_SECONDS)
            ended = max(run.ran_at for run in witness.runs())
        ran = self.judge(witness, count)
        self._figures["end_to_end_per_second"] = round(ran / (ended - began), 1)

    async def _pickup(self) -> None:
        async with self._producer() as peer:
            witness = Witness(self._memory, "pickup")
            with self._worker(peer, witness):
                await self._is_up(peer, witness)
                began = time.monotonic()
                for number in range(PICKUPS):
                    await asyncio.sleep(max(0.0, began + number * PICKUP_EVERY_SECONDS - time.monotonic()))
                    await peer.one({"n": number, "t": time.time()})
                await self._ran(witness, PICKUPS + 1)
                await asyncio.sleep(SECOND_RUNS_SECONDS)
        self.judge(witness, PICKUPS)
        waits = percentiles([run.ran_at - run.enqueued_at for run in witness.runs()])
        self._figures |= {f"pickup_{name}": value for name, value in waits.items()}

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Peer]:
        """A connected producer on an empty store."""
        store, plan = self._backend.fresh(), self._plan
        peer = PEERS[self._name](store, concurrency=plan.concurrency, with_result=plan.with_result)
        await peer.prepare()
        await peer.open()
        self._peer = peer
        try:
            yield peer
        finally:
            await peer.close()

    def _way(self, name: str) -> Way:
        """This way to enqueue, for whichever producer is connected then."""

        async def way(payloads: Sequence[Payload]) -> None:
            chosen = one_by_one(self._peer) if name == ONE_BY_ONE else self._peer.ways()[name]
            await chosen(payloads)

        return way

    def _worker(self, peer: Peer, witness: Witness) -> WorkerProcess:
        return WorkerProcess(self._name, peer, witness, log=self._folder / "worker.log")

    async def _is_up(self, peer: Peer, witness: Witness) -> None:
        await peer.one({"n": WARM_UP})
        if not await witness.wait(1, seconds=60.0):
            raise RuntimeError("the worker does not take the first job: " + self._log())
        await asyncio.sleep(IDLE_SECONDS)

    async def _ran(self, witness: Witness, runs: int) -> None:
        if not await witness.wait(runs, seconds=6 * self._plan.seconds) and not witness.count():
            raise RuntimeError("the worker runs nothing: " + self._log())

    async def _settled(self, peer: Peer) -> float | None:
        """When the store knew every job to be done; None where it never does, or not in time."""
        end = time.time() + SETTLE_SECONDS
        while (left := await peer.unfinished()) is not None and time.time() < end:
            if not left:
                return time.time()
            await asyncio.sleep(0.005)
        return None

    def judge(self, witness: Witness, count: int) -> int:
        """How many of the jobs ran. Those that did not, or did again, are told beside the figures."""
        found = witness.audit(count)
        self.lost += found["lost"]
        self.doubled += found["doubled"]
        return count - found["lost"]

    def _log(self) -> str:
        return (self._folder / "worker.log").read_text(errors="replace")[-2_000:]


class WorkerProcess:
    """The peer's worker, in a process of its own, for as long as the block lasts."""

    def __init__(self, name: str, peer: Peer, witness: Witness, *, log: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.peers.trial", name, "--work", peer.url]
        self._command += ["--concurrency", str(peer.concurrency)] + ["--with-result"] * peer.with_result
        self._environment = {**os.environ, VARIABLE: str(witness.path)}
        self._log = log

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._child = start(self._command, self._log, env=self._environment)
        return self._child

    def __exit__(self, *_error: object) -> None:
        stop(self._child)


def numbered(count: int) -> list[Payload]:
    """The payloads of so many jobs."""
    return [{"n": number} for number in range(count)]


def one_by_one(peer: Peer) -> Way:
    """The ordinary enqueue, one after another."""

    async def way(payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            await peer.one(payload)

    return way


def measure(name: str, plan: Plan, *, durable: bool, way: str | None) -> dict[str, Any]:
    """Start the server, run the trial, stop the server. With a `way`, end to end alone."""
    kind = PEERS[name]
    with (
        tempfile.TemporaryDirectory(prefix="trial-") as folder,
        tempfile.TemporaryDirectory(prefix="trial-", dir=memory_folder()) as memory,
    ):
        backend = BACKENDS[kind.backend](Path(folder), durable=durable)
        try:
            trial = Trial(name, plan, backend, Path(folder), Path(memory))
            figures = asyncio.run(trial.run_end_to_end(way) if way else trial.run())
        finally:
            backend.stop()
    return {
        "version": version(kind.packages[0]),
        "packages": {package: version(package) for package in kind.packages},
        "backend": backend.version,
        "durability": backend.durability,
        "concurrency": f"{plan.concurrency} {kind.unit}",
        "acknowledges": kind.acknowledges,
        "python": sys.version.split()[0],
        **figures,
    }


def main() -> None:
    """Measure, or (with --work) be the worker of what is measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(PEERS))
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="about how long a phase may take")
    parser.add_argument("--durable", action="store_true", help="Redis: sync every write")
    parser.add_argument("--with-result", action="store_true", help="each job has a result, which is kept")
    parser.add_argument("--concurrency", type=int, help="how many jobs at once; by default what is usual for the peer")
    parser.add_argument("--end-to-end", metavar="WAY", help="only that, enqueued in one of the ways that the peer has")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)  # a line for each job is not what is measured
    concurrency = given.concurrency or PEERS[given.name].at_once[0]
    if given.work:
        PEERS[given.name](given.work, concurrency=concurrency, with_result=given.with_result).work()
    else:
        plan = Plan(given.jobs, given.seconds, concurrency, given.with_result)
        print(json.dumps(measure(given.name, plan, durable=given.durable, way=given.end_to_end)), flush=True)


if __name__ == "__main__":
    main()
