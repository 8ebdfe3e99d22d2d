"""`python -m benchmarks NAME... [--short] [--repeats N] [--out FILE]`; NAME `all` is every benchmark."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path

import click
import uvloop

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.database import provide_database
from benchmarks.peers.environments import make_all
from benchmarks.results import Results
from jobqueue import logs
from jobqueue.process import calm_the_garbage_collector

NAMES = ("ceiling", "engine", "latency", "http", "growth", "blocking", "peers", "final")
MODULES = {"peers": "benchmarks.peers.comparison", "final": "benchmarks.peers.final"}
"""Of those that are not of the same name."""

DEFAULT_FILE = Path("docs/benchmarks/results.jsonl")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, required=True, type=click.Choice([*NAMES, "all", "report", "setup"]))
@click.option("--short", is_flag=True, help="See that it works; the figures mean little.")
@click.option("--repeats", type=click.IntRange(1), help="Rounds whose medians count; 5, or 1 with --short.")
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="Results file.")
@click.option("--report-to", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
def main(names: tuple[str, ...], short: bool, repeats: int | None, out: Path, report_to: Path) -> None:
    """Measure, append the figures to the results file; `report` makes the page and the plots of it, `setup` installs
    the peers. Without JOBQUEUE_BENCH_MONGODB_URI each benchmark starts an embedded server of its own."""
    logs.configure("WARNING", "console")
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = NAMES if "all" in names else names
    if "setup" in chosen:
        _setup()
    measured = [name for name in NAMES if name in chosen]
    if measured:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(measured, out, repeats=repeats or (1 if short else 5), short=short))
    if "report" in chosen:
        report.write(out, report_to)


async def measure(names: Sequence[str], out: Path, *, repeats: int, short: bool) -> None:
    """Run these benchmarks, each on a fresh server, the garbage collector set as the product sets it."""
    calm_the_garbage_collector()
    for name in names:
        benchmark = importlib.import_module(MODULES.get(name, f"benchmarks.{name}"))
        results = Results(out)
        async with provide_database() as database:
            results.begin(name, server=database.server, durability=database.durability, repeats=repeats, short=short)
            await benchmark.run(Bench(name, database, results, repeats, short))


def _setup() -> None:
    for name, problem in make_all():
        click.echo(f"{name}: {problem or 'ready'}")


if __name__ == "__main__":
    main()
