"""The best of the peers once more, side by side: `python -m benchmarks final`, after `peers`, with the same file.

It is for what the goals are about, jobs end to end: that takes a second or two, in which the machine may be slow, and
depends on how many jobs are enqueued and run at a time, and on what else can be set. So the best (this project, the
best durable peer, the best other one; with results and without) run it again, each in all its forms, in each of
several turns. Beside them stand the bare calls of the driver, for as many jobs in each turn: what a job service on that
server could reach at the best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import ceiling
from benchmarks.bench import Bench
from benchmarks.in_process import Driver
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.comparison import FEWEST_JOBS
from benchmarks.peers.entries import Entry, entries
from benchmarks.peers.ranking import BARE_CALLS, END_TO_END, FINAL, FINAL_OF, OURS, best
from benchmarks.results import Case, Line, read_results
from benchmarks.workload import BATCH

JOBS = 10_000
"""Of each form in each turn: so many that the last ones, as many as run at once, are a small share of them."""

WAYS = 2
"""So many ways to enqueue, the fastest, are tried."""


@dataclass(frozen=True, slots=True)
class Form:
    """A finalist in one of its forms. `setting` names one of those of the peer."""

    entry: Entry
    way: str
    concurrency: int
    setting: str = ""

    @property
    def case(self) -> str:
        """How the results file calls it."""
        return ", ".join(filter(None, [self.entry.case, self.setting, self.way, str(self.concurrency)]))

    async def play(self, bench: Bench) -> Line:
        """Its line of one turn."""
        options = ["--jobs", str(bench.size(JOBS, FEWEST_JOBS)), "--end-to-end", self.way]
        environment = PEERS[self.entry.peer].settings[self.setting]
        line = await self.entry.measure(bench, [*options, "--concurrency", str(self.concurrency)], environment)
        # By a name of its own: what is compared with everybody is the one figure that everybody has.
        rate = line.pop(END_TO_END, None)
        known = {FINAL_OF: self.entry.case, "way": self.way, "setting": self.setting}
        return line | known | ({FINAL: rate} if rate is not None else {})


async def run(bench: Bench) -> None:
    """All forms, then all of them again. Raises `ValueError` when the file has no figures of the peers."""
    measured = figures_of_peers(bench)
    forms = [form for entry in finalists(measured) for form in forms_of(entry, measured[entry])]
    for turn in bench.rounds():
        for driver in ceiling.DRIVERS:
            for claimed in PEERS[OURS].at_once:
                await play_bare(bench, driver, claimed, turn)
        for form in forms:
            with bench.case(form.case, repeat=turn) as line:
                line |= await form.play(bench)


async def play_bare(bench: Bench, driver: Driver, claimed: int, turn: int) -> None:
    """The three calls that a job takes, pipelined as for the ceiling, and nothing else."""
    with bench.case(f"{BARE_CALLS}, {driver}, {claimed}", repeat=turn) as line:
        jobs = bench.size(JOBS, FEWEST_JOBS)
        line |= await ceiling.through(bench.database, jobs, driver=driver, claimed=claimed)
        line |= {FINAL_OF: BARE_CALLS, FINAL: line["per_second"]}
        line |= {"setting": driver, "way": f"insert_many of {BATCH}", "concurrency": f"{claimed} a claim"}


def figures_of_peers(bench: Bench) -> Mapping[Entry, Case]:
    """What the file says of the peers."""
    found = read_results(bench.results.path).get("peers")
    if found is None:
        raise ValueError(f"{bench.results.path} has no figures of the peers; run `python -m benchmarks peers` first")
    return {entry: found.cases[entry.case] for entry in entries() if entry.case in found.cases}


def finalists(measured: Mapping[Entry, Case]) -> Iterator[Entry]:
    """This project, the best durable peer and the best other one; with results and without."""
    by_name = {entry.case: entry for entry, case in measured.items() if case.median(END_TO_END) is not None}
    cases = {name: measured[entry] for name, entry in by_name.items()}
    for with_result in (False, True):
        for entry in by_name.values():
            if entry.peer == OURS and entry.with_result is with_result:
                yield entry
        for durable in (True, False):
            if found := best(cases, durable=durable, with_result=with_result):
                yield by_name[found[0]]


def forms_of(entry: Entry, case: Case) -> Sequence[Form]:
    """The fastest ways to enqueue, each number of jobs at once, and each of its settings."""
    rates: Mapping[str, float] = case.lines[-1]["enqueue_by_way"]
    ranked = sorted(rates, key=lambda way: rates[way], reverse=True)
    peer = PEERS[entry.peer]
    return [
        Form(entry, way, concurrency, setting)
        for setting in peer.settings
        for way in ranked[:WAYS]
        for concurrency in peer.at_once
    ]
