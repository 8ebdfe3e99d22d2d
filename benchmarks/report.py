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
from benchmarks.markdown import figure, share, table, verdict, verdict_at_most
from benchmarks.peer_report import Bare, peers_section
from benchmarks.results import Benchmark, read_results

DRIVERS = ("pymongo", "motor")
BARE = "ceiling pipelined, pymongo"
A_FEW_MS = 5

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
    parts = [TITLE.replace("COMMANDS", "\n".join(_commands(found))), machine_section(found)]
    bare = Bare(
        found["engine"].median(BARE, "per_second") if "engine" in found else None,
        found["latency"].median(BARE_PICKUP, "p99_ms") if "latency" in found else None,
    )
    for name, section in (SECTIONS | {"peers": partial(peers_section, bare=bare, final=found.get("final"))}).items():
        if name in found:
            picture = [f"![{name}](benchmarks/{pictures[name]})"] if name in pictures else []
            heading, _, rest = section(found[name]).partition("\n\n")
            parts += [heading, _of_rounds(found[name]), rest, *picture, inspect.cleandoc(caveats.OF[name])]
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


def engine_section(found: Benchmark) -> str:
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
            verdict(
                found.ratio(f"bulk, {driver}", f"ceiling pipelined, {driver}"),
                least=0.7,
                of=f"Bulk as a share of the pipelined ceiling, {driver}",
            ),
            verdict(
                found.ratio(f"one by one, {driver}", f"bulk, {driver}"),
                least=0.5,
                of=f"One by one (1,000 callers, group commit alone) as a share of bulk, {driver}",
            ),
        )
    ]
    head = ["case", "jobs/s", "client CPU", "server CPU", "of the ceiling"]
    return "## The engine and its ceiling\n\n" + table(head, rows) + "\n\n" + "\n".join(goals)


def ceiling_section(found: Benchmark) -> str:
    """The bare driver calls by themselves."""
    rows = [
        [name, *(figure(case.median(each)) for each in ("per_second", "cpu_us", "server_cpu_us"))]
        for name, case in found.cases.items()
    ]
    return "## Bare driver calls\n\n" + table(["case", "jobs/s", "client CPU", "server CPU"], rows)


def http_section(found: Benchmark) -> str:
    """Requests, beside the bare handler that each is compared with."""
    bases = {POST: BARE_POST, POST_PYMONGO: BARE_POST, GET: BARE_GET}
    rows = []
    for name, case in found.cases.items():
        base = bases.get(name, "")
        figures = ("per_second", "server_cpu_us", "database_cpu_us", "p50_ms", "p99_ms")
        shares = [share(found.ratio(name, base)), share(_inverse(found.ratio(name, base, "server_cpu_us")))]
        rows.append([name, *(figure(case.median(each)) for each in figures), *shares])
    post, post_pymongo, get = (found.ratio(name, base) for name, base in bases.items())
    post_cpu, post_pymongo_cpu = (
        _inverse(found.ratio(name, BARE_POST, "server_cpu_us")) for name in (POST, POST_PYMONGO)
    )
    bulk, bare_bulk = (found.median(name, "jobs_per_second") for name in (BULK, BARE_BULK))
    single = found.median(POST, "per_second")
    goals = [
        verdict(post, least=0.5, of="`POST /jobs` as a share of the bare handler, in requests"),
        verdict(post_cpu, least=0.7, of="the same in CPU of the server"),
        verdict(post_pymongo, least=0.5, of="the same with PyMongo instead of Motor, in requests"),
        verdict(post_pymongo_cpu, least=0.7, of="the same with PyMongo in CPU of the server"),
        verdict(get, least=0.9, of="`GET /jobs/{id}` as a share of the bare handler with one find"),
        verdict(bulk / single if bulk and single else None, least=5, of="Jobs by `POST /jobs/bulk`, beside one by one"),
    ]
    for of, name, base in (
        (
            "`POST /jobs` as a share of the bare handler that stores too, in the plainest of group commits",
            POST,
            GROUPED,
        ),
        ("That one as a share of the bare handler that stores nothing", GROUPED, BARE_POST),
    ):
        requests, cpu = found.ratio(name, base), _inverse(found.ratio(name, base, "server_cpu_us"))
        goals.append(f"- {of}: {share(requests)} in requests, {share(cpu)} in CPU of the server.")
    if bulk and bare_bulk and single:
        goals.append(
            f"- The bare handler that stores 1,000 as they come, and answers little: {bare_bulk / single:.1f} times the"
            f" jobs of `POST /jobs` one by one, where `POST /jobs/bulk` is {bulk / single:.1f} times."
        )
    generators = sorted({case.text("generator") for case in found.cases.values()} - {""})
    by = f"\n\nLoad generator: {', '.join(generators)}." if generators else ""
    head = ["request", "requests/s", "server CPU", "database CPU", "p50 ms", "p99 ms", "of bare", "of bare, CPU"]
    return "## HTTP\n\n" + table(head, rows) + by + "\n\n" + "\n".join(goals)


def latency_section(found: Benchmark) -> str:
    """From the enqueue to the start of the task."""
    base = BARE_PICKUP
    rows = [
        [name, *(figure(case.median(each)) for each in ("p50_ms", "p95_ms", "p99_ms"))]
        for name, case in found.cases.items()
    ]
    goals = [
        verdict_at_most(found.ratio("local", base, "p50_ms"), most=1.5, of="Local, beside the bare calls"),
        *(
            verdict_at_most(
                found.median(TOLD, f"{rank}_ms"),
                most=A_FEW_MS,
                of=f"Across processes with change streams, a few milliseconds, {rank}",
                unit=" ms",
            )
            for rank in ("p50", "p99")
        ),
        verdict_at_most(found.median(POLLED, "p99_ms"), most=1_000, of="Across processes, polling", unit=" ms"),
    ]
    head = ["from enqueue to start", "p50 ms", "p95 ms", "p99 ms"]
    return "## Latency when idle\n\n" + table(head, rows) + "\n\n" + "\n".join(goals)


def growth_section(found: Benchmark) -> str:
    """What grows with what."""
    parts = ["## Growth", _queries_table(found), _throughput_table(found), _whose_memory(found)]
    return "\n\n".join(part for part in parts if part)


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


def blocking_section(found: Benchmark) -> str:
    """HTTP and leases while tasks keep a core busy."""
    figures = ("p50_ms", "p99_ms", "worst_ms", "least_lease_seconds")
    rows = [[name, *(figure(case.median(each)) for each in figures)] for name, case in found.cases.items()]
    head = ["two busy tasks run", "/livez p50 ms", "p99 ms", "worst ms", "least left of a lease of 3 s"]
    return "## Tasks that keep a core busy\n\n" + table(head, rows)


def _pair(found: Benchmark, case: str, ours: str, bare: str) -> str:
    return f"{figure(found.median(case, ours))} / {figure(found.median(case, bare))}"


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


SECTIONS: dict[str, Callable[[Benchmark], str]] = {
    "engine": engine_section,
    "ceiling": ceiling_section,
    "peers": peers_section,
    "http": http_section,
    "latency": latency_section,
    "growth": growth_section,
    "blocking": blocking_section,
}
"""In the order of the page."""
