"""What was aimed at: each goal once as a sentence of its section, and once as a row of the table of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.markdown import MISSING, figure, share, table

OF_BARE = """\
"Bare calls" is what the same comparison gives for the driver alone on the same server, storing what must be stored and
doing nothing else: what they miss, another server or driver would have to reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal, in words. Nothing is `measured` where a figure is missing: it is not reached then, nor missed.
    `bare` is what bare calls reach."""

    of: str
    wanted: str
    measured: str | None = None
    reached: bool = False
    bare: str | None = None
    remark: str = ""

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.of}: {self.verdict}; the goal is {self.wanted}."
        remark = f" {self.remark}" if self.remark else ""
        return f"{self.of}: {self.measured}; the goal of {self.wanted} is {self.verdict}.{remark}"

    @property
    def verdict(self) -> str:
        """In a word or two; bold where the figures disappoint."""
        if self.measured is None:
            return "not measured"
        return "reached" if self.reached else "**missed**"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under a heading: paragraphs, tables, and lists of goals and what is to be said with them."""

    heading: str
    parts: Sequence[str | Sequence[Goal | str]]

    @property
    def goals(self) -> Sequence[Goal]:
        """In their order."""
        return [each for part in self.parts if not isinstance(part, str) for each in part if isinstance(each, Goal)]

    @property
    def text(self) -> str:
        """All but the heading."""
        written = [part if isinstance(part, str) else "\n".join(f"- {each}" for each in part) for part in self.parts]
        return "\n\n".join(part for part in written if part)


def at_least(
    value: float | None,
    least: float,
    *,
    of: str,
    bare: float | None = None,
    written: Callable[[float], str] = share,
    remark: str = "",
) -> Goal:
    """Something that is to be so large."""
    return Goal(
        of=of,
        wanted=written(least),
        measured=_known(value, written),
        reached=value is not None and value >= least,
        bare=_known(bare, written),
        remark=remark,
    )


def at_most(
    value: float | None,
    most: float,
    *,
    of: str,
    bare: float | None = None,
    written: Callable[[float], str] = figure,
) -> Goal:
    """Something that is to be small."""
    return Goal(
        of=of,
        wanted=f"at most {written(most)}",
        measured=_known(value, written),
        reached=value is not None and value <= most,
        bare=_known(bare, written),
    )


def _known(value: float | None, written: Callable[[float], str]) -> str | None:
    return None if value is None else written(value)


def goals_section(goals: Sequence[Goal]) -> str:
    """All of them in one table."""
    rows = [[each.of, each.wanted, each.measured or MISSING, each.bare or MISSING, each.verdict] for each in goals]
    reached = sum(each.reached for each in goals)
    told = f"{reached} of {len(rows)} are reached. What was compared, and what is unfair about it, each section tells."
    head = ["goal", "wanted", "measured", "bare calls", "verdict"]
    return f"## The goals\n\n{told}\n{OF_BARE}\n\n{table(head, rows)}"
