"""Tables and figures as the report writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MISSING = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float | None) -> str:
    """Three digits or so: more than that no such measurement has."""
    if value is None:
        return MISSING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def share(value: float | None) -> str:
    """A ratio as a percentage."""
    return MISSING if value is None else f"{100 * value:.0f} %"


def milliseconds(value: float) -> str:
    """A time."""
    return f"{figure(value)} ms"


def times(value: float) -> str:
    """A ratio that is a multiple."""
    return f"{figure(value)} times"
