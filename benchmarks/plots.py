"""The plots of the report: one SVG for a benchmark, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.cases import BULK
from benchmarks.peers.ranking import END_TO_END, is_durable, is_ours, is_sound
from benchmarks.results import Benchmark

OURS, DURABLE, OTHER = "#1f6feb", "#57606a", "#c9d1d9"
"""Colours: this project, durable peers or what it is compared with, the rest."""

Draw = Callable[[Any, Benchmark], None]


def draw(found: Mapping[str, Benchmark], folder: Path) -> dict[str, str]:
    """Draw what there are figures for; returns the file names, by benchmark."""
    matplotlib.rcParams["svg.hashsalt"] = "jobqueue"
    drawn = {}
    for name, (title, plot) in PLOTS.items():
        if name in found:
            canvas = Figure(figsize=(8, 4.5), layout="constrained")
            axes = canvas.subplots()
            plot(axes, found[name])
            axes.set_title(title)
            axes.spines[["top", "right"]].set_visible(False)
            canvas.savefig(folder / f"{name}.svg", metadata={"Date": None})
            drawn[name] = f"{name}.svg"
    return drawn


def _engine(axes: Any, found: Benchmark) -> None:
    cases = {name: found.median(name, "per_second") for name in found.cases}
    _bars(axes, cases, lambda name: DURABLE if name.startswith("ceiling") else OURS)


def _peers(axes: Any, found: Benchmark) -> None:
    ranked = [name for name, case in found.cases.items() if "results" not in name and is_sound(case)]
    cases = {name: found.median(name, END_TO_END) for name in ranked}

    def colour(name: str) -> str:
        return OURS if is_ours(name) else DURABLE if is_durable(found.cases[name]) else OTHER

    _bars(axes, cases, colour)


def _http(axes: Any, found: Benchmark) -> None:
    cases = {name: found.median(name, "server_cpu_us") for name in found.cases if name != BULK}
    _bars(axes, cases, lambda name: DURABLE if name.startswith("bare") else OURS)


def _latency(axes: Any, found: Benchmark) -> None:
    cases = {name: found.median(name, "p50_ms") for name in found.cases}
    _bars(axes, cases, lambda name: DURABLE if name.startswith("bare") else OURS)
    axes.set_xscale("log")


def _growth(axes: Any, found: Benchmark) -> None:
    sizes = [name.removesuffix(": queries") for name in found.cases if name.endswith(" finished: queries")]
    for verb, style in (("look", "-"), ("claim", "--"), ("list", ":")):
        for prefix, colour, who in (("", OURS, "ours"), ("bare_", DURABLE, "bare")):
            values = [found.median(f"{size}: queries", f"{prefix}{verb}_ms") or 0.0 for size in sizes]
            axes.plot(sizes, values, style, color=colour, marker="o", label=f"{verb}, {who}")
    axes.set_yscale("log")
    axes.legend(frameon=False, ncols=3)


def _bars(axes: Any, cases: Mapping[str, float | None], colour: Callable[[str], str]) -> None:
    known = {name: value for name, value in reversed(list(cases.items())) if value is not None}
    bars = axes.barh(list(known), list(known.values()), color=[colour(name) for name in known])
    axes.bar_label(bars, fmt="{:,.4g}", padding=3)
    axes.margins(x=0.12)


PLOTS: Mapping[str, tuple[str, Draw]] = {
    "engine": ("Enqueue to completed, jobs a second", _engine),
    "peers": ("End to end, jobs a second (dark: durable)", _peers),
    "http": ("CPU of the server for each request, microseconds", _http),
    "latency": ("Enqueue to start, median, milliseconds", _latency),
    "growth": ("Queries beside what is finished, milliseconds", _growth),
}
