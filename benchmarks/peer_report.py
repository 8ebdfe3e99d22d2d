"""The section about other job queues: the table, the goals, and where a peer wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.markdown import figure, table
from benchmarks.peers.catalogue import PEERS
from benchmarks.results import Benchmark, Case

OURS = "jobqueue"
END_TO_END = "end_to_end_per_second"
PICKUP = "pickup_p99_ms"
COLUMNS: Mapping[str, str] = {
    "enqueue_one_per_second": "enqueue one/s",
    "enqueue_many_per_second": "enqueue many/s",
    "drain_per_second": "drain/s",
    "settled_per_second": "settled/s",
    END_TO_END: "end to end/s",
    "pickup_p50_ms": "pick-up p50 ms",
    "pickup_p95_ms": "pick-up p95 ms",
    PICKUP: "pick-up p99 ms",
}


def peers_section(found: Benchmark, *, bare: float | None = None) -> str:
    """Every peer that could be measured, and what became of the others. `bare` is the rate of the bare driver calls."""
    measured = {name: case for name, case in found.cases.items() if case.median(END_TO_END) is not None}
    head = ["peer", "version", "on", "durable", "runs at once", *COLUMNS.values(), "lost, doubled"]
    parts = [
        "## Other job queues",
        table(head, (_row(name, case) for name, case in measured.items())),
        "\n".join(f"- {name}: not measured: {reason}" for name, reason in _unmeasured(found)),
        _on_which_python(measured),
        "\n".join([*_goals(measured), *_pickup_goals(measured), *_what_is_possible(measured, bare)]),
        "\n".join(_wins(measured)),
    ]
    return "\n\n".join(part for part in parts if part)


def is_ours(name: str) -> bool:
    """Whether a case is this project."""
    return name.startswith(OURS)


def is_durable(case: Case) -> bool:
    """Whether what was acknowledged survives a crash of server and worker."""
    return bool(case.lines[-1].get("durable")) and bool(case.lines[-1].get("acknowledges"))


def best(cases: Mapping[str, Case], *, durable: bool, with_result: bool) -> tuple[str, float] | None:
    """The quickest peer end to end; durable, or not, and with or without results."""
    rates = {
        name: rate
        for name, case in cases.items()
        if not is_ours(name) and is_durable(case) is durable and _has_result(case) is with_result
        if (rate := case.median(END_TO_END)) is not None
    }
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def _row(name: str, case: Case) -> list[str]:
    durable = "yes" if is_durable(case) else "no"
    figures = [figure(case.median(column)) for column in COLUMNS]
    bad = ", ".join(figure(case.median(each)).removesuffix(".00") for each in ("lost", "doubled"))
    return [name, case.text("version"), case.text("backend"), durable, case.text("concurrency"), *figures, bad]


def _unmeasured(found: Benchmark) -> Iterator[tuple[str, str]]:
    for name, case in found.cases.items():
        if reason := case.text("not_measured"):
            yield name, reason


def _on_which_python(measured: Mapping[str, Case]) -> str:
    """In words: the Python that ours ran on, and who had another one."""
    if OURS not in measured:
        return ""
    ours = measured[OURS].text("python")
    others = [f"{name} on {python}" for name, case in measured.items() if (python := case.text("python")) != ours]
    return f"Ours ran on Python {ours}, and so did {'the others, but for ' + ', '.join(others) if others else 'all'}."


def _goals(measured: Mapping[str, Case]) -> Iterator[str]:
    for with_result, ours in ((False, OURS), (True, f"{OURS} (results)")):
        mine = measured[ours].median(END_TO_END) if ours in measured else None
        if mine is None:
            continue
        for durable, least in ((True, 2.0), (False, 1.0)):
            peer = best(measured, durable=durable, with_result=with_result)
            kind = "durable" if durable else "non-durable"
            if peer is None:
                yield f"- {ours}: no {kind} peer was measured beside it."
                continue
            times = mine / peer[1]
            word = "reached" if times >= least else "**missed**"
            yield (
                f"- {ours} end to end, {figure(mine)}/s, is {figure(times)} times the best {kind} peer"
                f" ({peer[0]}, {figure(peer[1])}/s); the goal of {figure(least)} times is {word}."
            )


def _pickup_goals(measured: Mapping[str, Case]) -> Iterator[str]:
    mine = measured[OURS].median(PICKUP) if OURS in measured else None
    for kind, peers in (
        ("peer that does not poll", {name: case for name, case in measured.items() if not _polls(case)}),
        (
            "durable one of these",
            {name: case for name, case in measured.items() if not _polls(case) and is_durable(case)},
        ),
    ):
        others = {
            name: case.median(PICKUP) for name, case in peers.items() if not is_ours(name) and not _has_result(case)
        }
        known = {name: value for name, value in others.items() if value is not None}
        if mine is not None and known:
            name = min(known, key=lambda each: known[each])
            word = "reached" if mine <= known[name] else "**missed**"
            yield (
                f"- {OURS} pick-up p99, {figure(mine)} ms, beside the best {kind} ({name}, {figure(known[name])} ms):"
                f" the goal of no more is {word}."
            )


def _what_is_possible(measured: Mapping[str, Case], bare: float | None) -> Iterator[str]:
    peer = best(measured, durable=True, with_result=False)
    if bare is not None and peer is not None:
        yield (
            f"- The bare driver calls for a job (insert, claim, complete, nothing else) reach {figure(bare)}/s on this"
            f" server, {figure(bare / peer[1])} times the best durable peer end to end: nothing can reach more here."
        )


def _polls(case: Case) -> bool:
    return PEERS[case.text("peer")].polls if case.text("peer") in PEERS else False


def _wins(measured: Mapping[str, Case]) -> Iterator[str]:
    """In words, for each column, who is ahead of this project."""
    for with_result, ours in ((False, OURS), (True, f"{OURS} (results)")):
        if ours not in measured:
            continue
        for column, title in COLUMNS.items():
            ahead = sorted(_ahead(measured, measured[ours], column, with_result=with_result))
            if ahead:
                yield f"- Ahead of {ours} in {title}: {', '.join(ahead)}."


def _ahead(measured: Mapping[str, Case], ours: Case, column: str, *, with_result: bool) -> Iterator[str]:
    mine = ours.median(column)
    for name, case in measured.items():
        value = case.median(column)
        if is_ours(name) or _has_result(case) is not with_result or mine is None or value is None:
            continue
        if value < mine if column.endswith("_ms") else value > mine:
            yield f"{name} ({figure(value)} to {figure(mine)})"


def _has_result(case: Case) -> bool:
    return bool(case.lines[-1].get("with_result"))
