"""`docs/benchmarks.md` and its plots, made of a results file alone: medians over the repeats of each one's last run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks import caveats
from benchmarks.cases import (
    BARE_BULK,
    BARE_GET,
    BARE_PICKUP,
    BARE_POST,
    BULK,
    GET,
    GROUPED,
    POLLED,
    POST,
    POST_PYMONGO,
    TOLD,
)
from benchmarks.goals import Goal, Section, at_least, at_most, goals_section
from benchmarks.markdown import figure, milliseconds, share, table
from benchmarks.peer_report import peers_section
from benchmarks.results import Benchmark, read_results

DRIVERS = ("pymongo", "motor")
A_FEW_MS = 5
BARE_OF = {POST: BARE_POST, POST_PYMONGO: BARE_POST, GET: BARE_GET}
"""Which bare handler a request is held against."""

TITLE = """\
# Benchmarks

How fast, beside what it could be at most, and beside others. Made by `python -m benchmarks report` of
[results.jsonl](benchmarks/results.jsonl), which has every single figure; here are medians over the rounds, whose number
each section tells. What is compared ran in turns, in one run, on one machine, unless it is said to be of two runs;
compare nothing across machines.

What is audited: of the engine, latency, growth and busy tasks that no job ran twice and all that were waited for ran,
else the case writes no figure. Of the job queues in comparison (this one too) lost and doubled jobs are counted beside
the figures, and who has any ranks nowhere. Over HTTP, that every job that was answered for is stored and no answer
failed. Bare driver calls check that they matched what they were to; queries by themselves have no audit.

```sh
pip install -e '.[bench]'
python -m benchmarks setup                 # the peers, each in an environment of its own (also needs redis, PostgreSQL)
                                           # Python 3.12 or newer: oban needs it, and all are to run on the same one
COMMANDS
python -m benchmarks report
make bench                                 # the short form: shows that it works, its figures mean little
```

Server: `JOBQUEUE_BENCH_MONGODB_URI`, else the embedded one; the table says which. Rates are per second, CPU is
microseconds for each job or request."""

REMARKS = {
    "peers": "about 20 minutes a round; JOBQUEUE_BENCH_ONLY=oban,saq,jobqueue chooses",
    "final": "the best of them side by side, about 8 minutes a turn",
}
"""Beside the commands."""


def write(results: Path, folder: Path) -> None:
    """Write the page, and the plots beside it. Needs matplotlib."""
    from benchmarks import plots

    found = read_results(results)
    pictures = folder / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(found, pictures)
    (folder / "benchmarks.md").write_text(render(found, drawn))


def render(found: Mapping[str, Benchmark], pictures: Mapping[str, str] = {}) -> str:
    """The page. `pictures` names the plot of a section, by the benchmark's name."""
    bare = found["latency"].median(BARE_PICKUP, "p99_ms") if "latency" in found else None
    make = SECTIONS | {"peers": partial(peers_section, bare_p99_ms=bare, final=found.get("final"))}
    sections = {name: section(found[name]) for name, section in make.items() if name in found}
    goals = [goal for section in sections.values() for goal in section.goals]
    in_one_table = [goals_section(goals)] if goals else []
    parts = [TITLE.replace("COMMANDS", "\n".join(_commands(found))), *in_one_table, machine_section(found)]
    for name, section in sections.items():
        picture = [f"![{name}](benchmarks/{pictures[name]})"] if name in pictures else []
        parts += [f"## {section.heading}", _of_rounds(found[name]), section.text, *picture]
        parts.append(inspect.cleandoc(caveats.OF[name]))
    return "\n\n".join(parts) + "\n"


def _commands(found: Mapping[str, Benchmark]) -> Iterator[str]:
    """Those by which these figures were made: what has as many rounds, and no remark, together."""
    together: dict[tuple[str, str], list[str]] = {}
    for name, each in found.items():
        option = "--short" if each.environment.get("short") else f"--repeats {each.rounds}"
        together.setdefault((option, REMARKS.get(name, "")), []).append(name)
    for (option, remark), names in together.items():
        command = f"python -m benchmarks {' '.join(names)} {option}"
        yield f"{command:<42} # {remark}" if remark else command


def _of_rounds(found: Benchmark) -> str:
    """In words: what a figure of a section is."""
    if found.rounds == 1:
        return "There was one round: these are single values."
    return f"These are medians of {found.rounds} rounds, ratios the medians of those within each round."


def machine_section(found: Mapping[str, Benchmark]) -> str:
    """What the figures depend on beside the code."""
    rows = []
    for name, each in found.items():
        known = each.environment
        form = "short" if known.get("short") else f"{each.rounds} round{'s' if each.rounds > 1 else ''}"
        commit = f"`{known.get('commit') or '?'}`"
        conditions = [figure(each.worst("load_after")), f"{figure(each.worst('steal_pct'))} %"]
        rows.append([name, form, str(known.get("server", "")), commit, figure(known.get("fsync_ms")), *conditions])
    head = ["benchmark", "form", "server", "commit", "fsync ms", "highest load", "highest steal"]
    return f"## The machine\n\n{_described(found)}\n\n{table(head, rows)}"


def _described(found: Mapping[str, Benchmark]) -> str:
    known = next((each.environment for each in found.values()), {})
    packages = ", ".join(f"{name} {version}" for name, version in known.get("packages", {}).items())
    return (
        f"{known.get('cpu', '?')}, {known.get('cores', '?')} cores, {known.get('memory_gb', '?')} GB,"
        f" {known.get('system', '?')}; Python {known.get('python', '?')}; {packages}."
        f" Durability: {known.get('durability', '?')}."
    )


def engine_section(found: Benchmark) -> Section:
    """The engine as a share of the ceiling."""
    rows = []
    for driver in DRIVERS:
        base = f"ceiling pipelined, {driver}"
        for case in (base, f"bulk, {driver}", f"one by one, {driver}", f"drain, {driver}"):
            figures = [found.median(case, name) for name in ("per_second", "cpu_us", "server_cpu_us")]
            rows.append([case, *map(figure, figures), share(found.ratio(case, base))])
    goals = [
        goal
        for driver in DRIVERS
        for goal in (
            at_least(
                found.ratio(f"bulk, {driver}", f"ceiling pipelined, {driver}"),
                0.7,
                of=f"Bulk as a share of the pipelined ceiling, {driver}",
            ),
            at_least(
                found.ratio(f"one by one, {driver}", f"bulk, {driver}"),
                0.5,
                of=f"One by one (1,000 callers, group commit alone) as a share of bulk, {driver}",
            ),
        )
    ]
    head = ["case", "jobs/s", "client CPU", "server CPU", "of the ceiling"]
    return Section("The engine and its ceiling", [table(head, rows), goals])


def ceiling_section(found: Benchmark) -> Section:
    """The bare driver calls by themselves."""
    rows = [
        [name, *(figure(case.median(each)) for each in ("per_second", "cpu_us", "server_cpu_us"))]
        for name, case in found.cases.items()
    ]
    return Section("Bare driver calls", [table(["case", "jobs/s", "client CPU", "server CPU"], rows)])


def http_section(found: Benchmark) -> Section:
    """Requests, beside the bare handler that each is compared with."""
    rows = []
    for name, case in found.cases.items():
        figures = ("per_second", "server_cpu_us", "database_cpu_us", "p50_ms", "p99_ms")
        shares = map(share, _of_base(found, name, BARE_OF.get(name, "")))
        rows.append([name, *(figure(case.median(each)) for each in figures), *shares])
    generators = sorted({case.text("generator") for case in found.cases.values()} - {""})
    by = f"Load generator: {', '.join(generators)}." if generators else ""
    head = ["request", "requests/s", "server CPU", "database CPU", "p50 ms", "p99 ms", "of bare", "of bare, CPU"]
    return Section("HTTP", [table(head, rows), by, [*_posting(found), *_bulk(found)]])


def _posting(found: Benchmark) -> Iterator[Goal | str]:
    told = "as a share of the bare handler"
    (post, post_cpu), (pymongo, pymongo_cpu), (grouped, grouped_cpu) = (
        _of_base(found, case, BARE_POST) for case in (POST, POST_PYMONGO, GROUPED)
    )
    yield at_least(post, 0.5, of=f"`POST /jobs` {told}, in requests", bare=grouped)
    yield at_least(post_cpu, 0.7, of=f"`POST /jobs` {told}, in CPU of the server", bare=grouped_cpu)
    yield at_least(pymongo, 0.5, of=f"`POST /jobs` with PyMongo instead of Motor {told}, in requests")
    yield at_least(pymongo_cpu, 0.7, of=f"`POST /jobs` with PyMongo instead of Motor {told}, in CPU of the server")
    yield at_least(found.ratio(GET, BARE_GET), 0.9, of=f"`GET /jobs/{{id}}` {told} with one find")
    of_grouped, of_grouped_cpu = _of_base(found, POST, GROUPED)
    yield (
        f"The bare handler that stores too, in the plainest of group commits: {share(grouped)} in requests,"
        f" {share(grouped_cpu)} in CPU of the server; `POST /jobs` as a share of that: {share(of_grouped)} and"
        f" {share(of_grouped_cpu)}."
    )


def _bulk(found: Benchmark) -> Iterator[Goal | str]:
    single = found.median(POST, "per_second")
    bulk, bare = (
        jobs / single if jobs and single else None
        for jobs in (found.median(case, "jobs_per_second") for case in (BULK, BARE_BULK))
    )
    yield at_least(bulk, 5, of="Jobs by `POST /jobs/bulk`, beside one by one", bare=bare)
    if bare:
        yield f"The bare handler that stores 1,000 as they come, and answers little, beside one by one: {share(bare)}."


def latency_section(found: Benchmark) -> Section:
    """From the enqueue to the start of the task."""
    base = BARE_PICKUP
    rows = [
        [name, *(figure(case.median(each)) for each in ("p50_ms", "p95_ms", "p99_ms"))]
        for name, case in found.cases.items()
    ]
    told = "Across processes with change streams, a few milliseconds"
    p50, p99 = (found.median(base, f"{rank}_ms") for rank in ("p50", "p99"))
    polled = found.median(POLLED, "p99_ms")
    goals = [
        at_most(found.ratio("local", base, "p50_ms"), 1.5, of="Local, from enqueue to start, beside the bare calls"),
        at_most(found.median(TOLD, "p50_ms"), A_FEW_MS, of=f"{told}, p50", bare=p50, written=milliseconds),
        at_most(found.median(TOLD, "p99_ms"), A_FEW_MS, of=f"{told}, p99", bare=p99, written=milliseconds),
        at_most(polled, 1_000, of="Across processes, polling each second, p99", written=milliseconds),
    ]
    head = ["from enqueue to start", "p50 ms", "p95 ms", "p99 ms"]
    return Section("Latency when idle", [table(head, rows), goals])


def growth_section(found: Benchmark) -> Section:
    """What grows with what."""
    return Section("Growth", [_queries_table(found), _throughput_table(found), _whose_memory(found)])


def _whose_memory(found: Benchmark) -> str:
    if any(name.startswith("backlog") and name.endswith(": queries") for name in found.cases):
        return (
            "Each number of finished or waiting jobs had a server of its own, every engine a process of its own: "
            "memory is of that alone. Slots and payloads shared a server, whose memory is of all until then."
        )
    return "All sizes were measured in one process and on one server: memory is of all until then."


def _queries_table(found: Benchmark) -> str:
    verbs = ("look", "claim", "list", "count")
    rows = [
        [name.removesuffix(": queries"), *(_pair(found, name, f"{verb}_ms", f"bare_{verb}_ms") for verb in verbs)]
        for name in found.cases
        if name.endswith(": queries")
    ]
    head = ["milliseconds, ours / bare", "look for 100", "claim 100", "list 50", "count by state"]
    return table(head, rows)


def _throughput_table(found: Benchmark) -> str:
    rows = []
    for name, case in found.cases.items():
        if not name.endswith((": queries", ": bare")):
            base = name.removesuffix(": engine") + ": bare"
            figures = ("per_second", "cpu_us", "start_ms", "process_mb", "server_mb")
            shares = [figure(found.median(base, "per_second")), share(found.ratio(name, base))]
            rows.append([name, *(figure(case.median(each)) for each in figures), *shares])
    head = ["case", "jobs/s", "client CPU", "start ms", "process MB", "server MB", "bare calls/s", "of bare"]
    return table(head, rows)


def blocking_section(found: Benchmark) -> Section:
    """HTTP and leases while tasks keep a core busy."""
    figures = ("p50_ms", "p99_ms", "worst_ms", "least_lease_seconds")
    rows = [[name, *(figure(case.median(each)) for each in figures)] for name, case in found.cases.items()]
    head = ["two busy tasks run", "/livez p50 ms", "p99 ms", "worst ms", "least left of a lease of 3 s"]
    return Section("Tasks that keep a core busy", [table(head, rows)])


def _pair(found: Benchmark, case: str, ours: str, bare: str) -> str:
    return f"{figure(found.median(case, ours))} / {figure(found.median(case, bare))}"


def _of_base(found: Benchmark, case: str, base: str) -> tuple[float | None, float | None]:
    """Its share in requests, and in CPU of the server, of which the base needs less."""
    return found.ratio(case, base), _inverse(found.ratio(case, base, "server_cpu_us"))


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


SECTIONS: dict[str, Callable[[Benchmark], Section]] = {
    "engine": engine_section,
    "ceiling": ceiling_section,
    "peers": peers_section,
    "http": http_section,
    "latency": latency_section,
    "growth": growth_section,
    "blocking": blocking_section,
}
"""In the order of the page."""
