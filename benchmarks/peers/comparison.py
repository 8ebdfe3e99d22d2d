"""Every peer in turn, in each round, then a final: `python -m benchmarks peers`.

What cannot be measured here is told, never won. The final is for what the goals are about, jobs end to end: it takes
a second or two, in which the machine may be slow, and depends on how many jobs are enqueued and run at a time. So the
best (this project, the best durable peer, the best other one; with results and without) run it again, each in all its
forms, side by side in each of several turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.entries import Entry, entries
from benchmarks.peers.ranking import END_TO_END, FINAL, FINAL_OF, OURS, best
from benchmarks.results import Case, Line

TURNS = 7
JOBS = 5_000
FEWEST_JOBS = 300

WAYS = 2
"""So many ways to enqueue, the fastest, are tried in the final."""


@dataclass(frozen=True, slots=True)
class Form:
    """A finalist in one of its forms."""

    entry: Entry
    way: str
    concurrency: int

    @property
    def case(self) -> str:
        """How the results file calls it."""
        return f"final: {self.entry.case}, {self.way}, {self.concurrency} at once"


async def run(bench: Bench) -> None:
    """All of them, then all of them again; then the final."""
    measured = {entry: Case() for entry in entries()}
    options = ["--jobs", str(bench.size(JOBS, FEWEST_JOBS)), "--seconds", str(bench.size(20, 5))]
    for repeat in bench.rounds():
        for entry, case in measured.items():
            with bench.case(entry.case, repeat=repeat) as line:
                line |= await entry.measure(bench, options)
                case.lines.append(line)
    forms = [form for entry in finalists(measured) for form in forms_of(entry, measured[entry])]
    for turn in range(bench.size(TURNS, 1)):
        for form in forms:
            with bench.case(form.case, repeat=turn) as line:
                line |= await _play(bench, form)


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
    """The fastest ways to enqueue, and each number of jobs at once."""
    rates: Mapping[str, float] = case.lines[-1]["enqueue_by_way"]
    ranked = sorted(rates, key=lambda way: rates[way], reverse=True)
    return [Form(entry, way, concurrency) for way in ranked[:WAYS] for concurrency in PEERS[entry.peer].at_once]


async def _play(bench: Bench, form: Form) -> Line:
    options = ["--jobs", str(bench.size(JOBS, FEWEST_JOBS)), "--end-to-end", form.way]
    line = await form.entry.measure(bench, [*options, "--concurrency", str(form.concurrency)])
    # By a name of its own: what is compared with everybody is the one figure that everybody has.
    rate = line.pop(END_TO_END, None)
    return line | {FINAL_OF: form.entry.case, "way": form.way} | ({FINAL: rate} if rate is not None else {})
