"""The results file: JSON lines, appended. The first line of a run describes the machine, each other is one case.

A line of a case: `run`, `benchmark`, `case`, `repeat`, its figures, and what the machine was like meanwhile.
"""

from __future__ import annotations

import json
import secrets
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import Conditions, environment

ENVIRONMENT = "environment"
Line = dict[str, Any]


class Results:
    """Appends to one file. What is written is also printed, for whoever waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run = secrets.token_hex(4)

    def begin(self, benchmark: str, **facts: Any) -> None:
        """Describe the machine, and whatever else the cases that follow have in common."""
        self._write({"benchmark": benchmark, "case": ENVIRONMENT, **facts, **environment()})

    @contextmanager
    def case(self, benchmark: str, case: str, *, repeat: int = 0) -> Iterator[Line]:
        """A line to put figures into; written when the block ends without an error."""
        before = Conditions.now()
        figures: Line = {}
        yield figures
        conditions = before.until(Conditions.now())
        self._write({"benchmark": benchmark, "case": case, "repeat": repeat, **figures, **conditions})

    def _write(self, line: Line) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"run": self._run, "at": stamp, **line})
        with self.path.open("a") as file:
            file.write(text + "\n")
        print(text, flush=True)


@dataclass(slots=True)
class Case:
    """All repeats of one case."""

    lines: list[Line] = field(default_factory=list)

    def median(self, figure: str) -> float | None:
        """The middle of a figure over the repeats; None where none has it."""
        values = [line[figure] for line in self.lines if isinstance(line.get(figure), int | float)]
        return statistics.median(values) if values else None

    def text(self, name: str) -> str:
        """What the last repeat says about something that is no figure."""
        return str(self.lines[-1].get(name, ""))


@dataclass(slots=True)
class Benchmark:
    """One benchmark as it was run last: what its cases have in common, and the cases in their order."""

    environment: Line
    cases: Mapping[str, Case]

    def median(self, case: str, figure: str) -> float | None:
        """None where there is no such case, or no such figure."""
        return self.cases[case].median(figure) if case in self.cases else None

    @property
    def rounds(self) -> int:
        """How many were really made, whatever was meant to be."""
        return len({line["repeat"] for case in self.cases.values() for line in case.lines})

    def ratio(self, case: str, base: str, figure: str = "per_second") -> float | None:
        """The middle, over the repeats, of one case's figure by another's: what is compared ran side by side."""
        ratios = self.ratios(case, base, figure)
        return statistics.median(ratios) if ratios else None

    def ratios(self, case: str, base: str, figure: str) -> Sequence[float]:
        """That of each repeat which has both."""
        ours, theirs = self.cases.get(case), self.cases.get(base)
        if ours is None or theirs is None:
            return []
        bases = {line["repeat"]: line.get(figure) for line in theirs.lines}
        pairs = [(line.get(figure), bases.get(line["repeat"])) for line in ours.lines]
        return [mine / other for mine, other in pairs if mine is not None and other]

    def worst(self, condition: str) -> float:
        """The largest value that a condition of the machine had."""
        return max((line.get(condition, 0.0) for case in self.cases.values() for line in case.lines), default=0.0)


def read_results(path: Path) -> Mapping[str, Benchmark]:
    """Of every benchmark in the file its last run, by name."""
    lines: Sequence[Line] = [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
    last = {line["benchmark"]: line["run"] for line in lines}
    grouped: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["run"] == last[line["benchmark"]]:
            grouped[line["benchmark"]].append(line)
    return {name: _benchmark(group) for name, group in grouped.items()}


def _benchmark(lines: Sequence[Line]) -> Benchmark:
    described = next((line for line in reversed(lines) if line["case"] == ENVIRONMENT), {})
    cases: dict[str, Case] = {}
    for line in lines:
        if line["case"] != ENVIRONMENT:
            cases.setdefault(line["case"], Case()).lines.append(line)
    return Benchmark(described, cases)
