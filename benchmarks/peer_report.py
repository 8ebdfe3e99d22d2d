"""The section about other job queues: the table, the goals, and where a peer wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks.goals import Goal, Section, at_least, at_most
from benchmarks.markdown import figure, milliseconds, table, times
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.ranking import (
    BARE_CALLS,
    END_TO_END,
    FINAL,
    FINAL_OF,
    OURS,
    best,
    finals,
    has_result,
    is_durable,
    is_ours,
    is_sound,
    quickest,
)
from benchmarks.results import Benchmark, Case

MOONSHOT = 7_000 / 2_286
"""So many times oban: past 7,000/s on a machine where it does 2,286."""

AS_IT_COMES = {"setting": "Motor", "way": "enqueue_many of 1000", "concurrency": "100 asyncio tasks"}
"""Our form in the table of all: the default driver, and as many slots as the others on asyncio."""

RULE = """\
By this rule: for each the form with the highest median counts, and the ratio is the middle of those of these two
forms turn by turn. Beside it are the least and the most of the turns, and the middle by that peer's other forms."""

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


def peers_section(found: Benchmark, *, bare_p99_ms: float | None = None, final: Benchmark | None = None) -> Section:
    """Every peer that could be measured, and what became of the others. `bare_p99_ms` is how long a bare insert and a
    claim took in the run of the latency."""
    measured = {name: case for name, case in found.cases.items() if case.median(END_TO_END) is not None}
    head = ["peer", "version", "on", "durable", "runs at once", *COLUMNS.values(), "lost, doubled"]
    parts: list[str | Sequence[Goal | str]] = [
        table(head, (_row(name, case, measured) for name, case in measured.items())),
        "Bold: ahead of jobqueue; where jobs have results, of jobqueue with results.",
        [f"{name}: not measured: {reason}" for name, reason in _unmeasured(found)],
        _durabilities(measured),
        _on_which_python(measured),
        *(_final(measured, final) if final is not None and final.cases else []),
        [*_pickup_goals(measured), *_what_is_possible(bare_p99_ms)],
    ]
    return Section("Other job queues", parts)


def _row(name: str, case: Case, measured: Mapping[str, Case]) -> list[str]:
    durable = "yes" if is_durable(case) else "no"
    ours = measured.get(f"{OURS} (results)" if has_result(case) else OURS)
    figures = [_figure(name, case, column, ours) for column in COLUMNS]
    bad = ", ".join(f"{sum(line.get(each, 0) for line in case.lines)}" for each in ("lost", "doubled"))
    bad += "" if is_sound(case) else ": **not ranked**"
    return [name, case.text("version"), case.text("backend"), durable, case.text("concurrency"), *figures, bad]


def _figure(name: str, case: Case, column: str, ours: Case | None) -> str:
    """The figure, bold where it is better than that of this project."""
    value, mine = case.median(column), ours.median(column) if ours is not None else None
    if value is None or mine is None or is_ours(name) or not is_sound(case):
        return figure(value)
    ahead = value < mine if column.endswith("_ms") else value > mine
    return f"**{figure(value)}**" if ahead else figure(value)


def _unmeasured(found: Benchmark) -> Iterator[tuple[str, str]]:
    for name, case in found.cases.items():
        if reason := case.text("not_measured"):
            yield name, reason


def _durabilities(measured: Mapping[str, Case]) -> str:
    """In words: what each server was told to do before it acknowledges a write."""
    told = {(case.text("backend"), case.text("durability")): None for case in measured.values()}
    servers = [f"{backend}: {durability}" for backend, durability in told if durability]
    return f"Durability: {'; '.join(servers)}." if servers else ""


def _on_which_python(measured: Mapping[str, Case]) -> str:
    """In words: the Python that ours ran on, and who had another one."""
    if OURS not in measured:
        return ""
    ours = measured[OURS].text("python")
    others = [f"{name} on {python}" for name, case in measured.items() if (python := case.text("python")) != ours]
    return f"Ours ran on Python {ours}, and so did {'the others, but for ' + ', '.join(others) if others else 'all'}."


def _final(measured: Mapping[str, Case], final: Benchmark) -> Iterator[str | Sequence[Goal | str]]:
    """The forms in which the best ran again side by side, and what the goals say of the quickest form of each."""
    jobs = "; ".join(sorted({figure(case.lines[-1]["jobs"]) for case in final.cases.values() if case.text("jobs")}))
    of_jobs = f" of {jobs} jobs" if jobs else ""
    yield f"The best once more, end to end in each of {final.rounds} turns{of_jobs}, in the forms that may suit them:"
    head = ["peer", "set to", "enqueued", "at once", "end to end/s", "least", "most"]
    yield table(head, map(_form, final.cases.values()))
    yield RULE
    yield [*_goals(measured, final), _moonshot(final)]


def _form(case: Case) -> list[str]:
    rates = [line[FINAL] for line in case.lines if FINAL in line]
    figures = [figure(value) for value in (case.median(FINAL), min(rates, default=None), max(rates, default=None))]
    mark = "" if is_sound(case) else ": **not ranked**, jobs were lost or doubled"
    return [case.text(FINAL_OF) + mark, *map(case.text, ("setting", "way", "concurrency")), *figures]


def _goals(measured: Mapping[str, Case], final: Benchmark) -> Iterator[Goal | str]:
    for with_result, ours in ((False, OURS), (True, f"{OURS} (results)")):
        forms = finals(final.cases, of=ours)
        mine = quickest(forms, FINAL)
        if mine is None:
            if forms:
                yield f"{ours}: jobs were lost or doubled, so it ranks nowhere."
            continue
        for durable, least in ((True, 2.0), (False, 1.0)):
            kind = "durable" if durable else "non-durable"
            peer = best(measured, durable=durable, with_result=with_result)
            theirs = quickest(finals(final.cases, of=peer[0]), FINAL) if peer is not None else None
            ratio = final.ratio(mine[0], theirs[0], FINAL) if theirs is not None else None
            if peer is None or theirs is None or ratio is None:
                yield f"{ours}: no {kind} peer was measured beside it."
                continue
            yield at_least(
                ratio,
                least,
                of=f"{ours} end to end, {figure(mine[1])}/s, beside the best {kind} peer"
                f" ({peer[0]}, {figure(theirs[1])}/s)",
                bare=None if with_result else _of_bare_calls(final, theirs[0]),
                written=times,
                remark=f"{_how_sure(final, mine[0], theirs[0], peer=peer[0])}{_as_it_comes(final, ours, theirs[0])}",
            )


def _of_bare_calls(final: Benchmark, theirs: str) -> float | None:
    """The same ratio of what bare calls of the driver did in the same turns."""
    bare = quickest(finals(final.cases, of=BARE_CALLS), FINAL)
    return final.ratio(bare[0], theirs, FINAL) if bare is not None else None


def _how_sure(final: Benchmark, mine: str, theirs: str, *, peer: str) -> str:
    """In words: how far the ratio depends on the turn, and on which form of the peer was the best."""
    turns = final.ratios(mine, theirs, FINAL)
    others = [final.ratio(mine, form, FINAL) for form in _sound_forms(final, peer) if form != theirs]
    known = [ratio for ratio in others if ratio is not None]
    by_others = f"; by its other forms {figure(min(known))} to {figure(max(known))}" if known else ""
    return f"In single turns {figure(min(turns))} to {figure(max(turns))}{by_others}."


def _sound_forms(final: Benchmark, of: str) -> list[str]:
    return [name for name, case in finals(final.cases, of=of).items() if is_sound(case)]


def _as_it_comes(final: Benchmark, ours: str, theirs: str) -> str:
    """In words: the same ratio of our form in the table of all, if that took part."""
    for name, case in finals(final.cases, of=ours).items():
        if {each: case.text(each) for each in AS_IT_COMES} == AS_IT_COMES:
            words = " ".join((AS_IT_COMES["setting"], f"with {AS_IT_COMES['way']} and", AS_IT_COMES["concurrency"]))
            return f" As in the table of all ({words}) it is {figure(final.ratio(name, theirs, FINAL))}."
    return ""


def _moonshot(final: Benchmark) -> Goal:
    of = "The moonshot, past 7,000/s on a machine where oban does 2,286"
    mine = quickest(finals(final.cases, of=OURS), FINAL)
    oban = quickest(finals(final.cases, of="oban"), FINAL)
    if mine is None or oban is None:
        return at_least(None, MOONSHOT, of=of, written=times)
    ratio, bare = final.ratio(mine[0], oban[0], FINAL), _of_bare_calls(final, oban[0])
    goal = at_least(ratio, MOONSHOT, of=of, bare=bare, written=times)
    if goal.measured is None:
        return goal
    return replace(goal, measured=f"{figure(mine[1])}/s where oban does {figure(oban[1])}, {goal.measured}")


def _pickup_goals(measured: Mapping[str, Case]) -> Iterator[Goal]:
    mine = measured[OURS].median(PICKUP) if OURS in measured and is_sound(measured[OURS]) else None
    for kind, peers in (
        ("peer that does not poll", {name: case for name, case in measured.items() if not _polls(case)}),
        (
            "durable one of these",
            {name: case for name, case in measured.items() if not _polls(case) and is_durable(case)},
        ),
    ):
        others = {
            name: case.median(PICKUP)
            for name, case in peers.items()
            if not is_ours(name) and not has_result(case) and is_sound(case)
        }
        known = {name: value for name, value in others.items() if value is not None}
        if mine is not None and known:
            name = min(known, key=lambda each: known[each])
            of = f"{OURS} pick-up p99 beside the best {kind} ({name})"
            yield at_most(mine, known[name], of=of, written=milliseconds)


def _what_is_possible(bare_p99_ms: float | None) -> Iterator[str]:
    if bare_p99_ms is not None:
        yield (
            f"In another run, that of the latency, a bare insert and the claim after it, by one process and with"
            f" nobody to be told, took {figure(bare_p99_ms)} ms at p99 on this server."
        )


def _polls(case: Case) -> bool:
    return PEERS[case.text("peer")].polls if case.text("peer") in PEERS else False
