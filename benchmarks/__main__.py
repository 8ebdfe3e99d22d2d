"""`python -m benchmarks NAME... [--short] [--repeats N] [--out FILE]`; NAME `all` is every benchmark."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.database import provide_database
from benchmarks.peers.environments import make_all
from benchmarks.processes import run_as_the_product
from benchmarks.results import Results

NAMES = ("ceiling", "engine", "latency", "http", "growth", "blocking", "peers", "final")
MODULES = {"peers": "benchmarks.peers.comparison", "final": "benchmarks.peers.final"}
"""Of those that are not of the same name."""

PUBLISHED = Path("docs")
SHORT = Path("build/bench")
"""Where results and page go by default: what is published, or what means little."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, required=True, type=click.Choice([*NAMES, "all", "report", "setup"]))
@click.option("--short", is_flag=True, help="See that it works; the figures mean little.")
@click.option("--repeats", type=click.IntRange(1), help="Rounds whose medians count; 5, or 1 with --short.")
@click.option("--out", type=click.Path(path_type=Path), help="Results file; in docs, or build/bench if short.")
@click.option("--report-to", type=click.Path(path_type=Path), help="Folder of the page; docs, or build/bench if short.")
def main(names: tuple[str, ...], short: bool, repeats: int | None, out: Path | None, report_to: Path | None) -> None:
    """Measure, append the figures to the results file; `report` makes the page and the plots of it, `setup` installs
    the peers. Without JOBQUEUE_BENCH_MONGODB_URI each benchmark starts an embedded server of its own."""
    report_to = report_to or (SHORT if short else PUBLISHED)
    out = out or (SHORT / "results.jsonl" if short else PUBLISHED / "benchmarks" / "results.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = NAMES if "all" in names else names
    if "setup" in chosen:
        _setup()
    measured = [name for name in NAMES if name in chosen]
    if measured:
        run_as_the_product(measure, measured, out, repeats or (1 if short else 5), short)
    if "report" in chosen:
        report.write(out, report_to)


async def measure(names: Sequence[str], out: Path, repeats: int, short: bool) -> None:
    """Run these benchmarks, each on a fresh server."""
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
