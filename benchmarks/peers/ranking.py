"""Who is the quickest end to end, by what the results file says of each; who lost or doubled a job is not."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.results import Case

OURS = "jobqueue"
BARE_CALLS = "bare driver calls"
END_TO_END = "end_to_end_per_second"
FINAL = "final_per_second"
"""The same figure of what was run again in the final."""
FINAL_OF = "final_of"
"""Whose form it is."""


def is_ours(name: str) -> bool:
    """Whether a case is this project."""
    return name.startswith(OURS)


def is_durable(case: Case) -> bool:
    """Whether what was acknowledged survives a crash of server and worker."""
    return bool(case.lines[-1].get("durable")) and bool(case.lines[-1].get("acknowledges"))


def is_sound(case: Case) -> bool:
    """Whether each of its jobs ran exactly once, in every repeat. Else its figures are shown and rank nowhere."""
    return not any(line.get("lost") or line.get("doubled") for line in case.lines)


def has_result(case: Case) -> bool:
    """Whether each job had a result, which was kept."""
    return bool(case.lines[-1].get("with_result"))


def best(cases: Mapping[str, Case], *, durable: bool, with_result: bool) -> tuple[str, float] | None:
    """The quickest peer end to end; durable, or not, and with or without results."""
    return quickest(
        {
            name: case
            for name, case in cases.items()
            if not is_ours(name) and is_durable(case) is durable and has_result(case) is with_result
        },
        END_TO_END,
    )


def quickest(cases: Mapping[str, Case], figure: str) -> tuple[str, float] | None:
    """The case with the largest median, and that; of those whose jobs each ran once."""
    sound = {name: case for name, case in cases.items() if is_sound(case)}
    rates = {name: rate for name, case in sound.items() if (rate := case.median(figure)) is not None}
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def finals(cases: Mapping[str, Case], *, of: str) -> dict[str, Case]:
    """The forms of this one in the final."""
    return {name: case for name, case in cases.items() if case.text(FINAL_OF) == of}
