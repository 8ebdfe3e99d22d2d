"""The section about other job queues: the table, the goals, and where a peer wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.markdown import figure, table
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.ranking import (
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


@dataclass(frozen=True, slots=True)
class Bare:
    """What bare driver calls reach on the same server: jobs a second, and the wait until a job is claimed."""

    per_second: float | None = None
    p99_ms: float | None = None


NOT_MEASURED = Bare()


def peers_section(found: Benchmark, *, bare: Bare = NOT_MEASURED, final: Benchmark | None = None) -> str:
    """Every peer that could be measured, and what became of the others."""
    measured = {name: case for name, case in found.cases.items() if case.median(END_TO_END) is not None}
    head = ["peer", "version", "on", "durable", "runs at once", *COLUMNS.values(), "lost, doubled"]
    parts = [
        "## Other job queues",
        table(head, (_row(name, case, measured) for name, case in measured.items())),
        "Bold: ahead of jobqueue; where jobs have results, of jobqueue with results.",
        "\n".join(f"- {name}: not measured: {reason}" for name, reason in _unmeasured(found)),
        _durabilities(measured),
        _on_which_python(measured),
        *(_final(measured, final) if final is not None and final.cases else []),
        "\n".join([*_pickup_goals(measured), *_what_is_possible(measured, bare)]),
    ]
    return "\n\n".join(part for part in parts if part)


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


def _final(measured: Mapping[str, Case], final: Benchmark) -> Iterator[str]:
    """The forms in which the best ran again side by side, and what the goals say of the quickest form of each."""
    jobs = "; ".join(sorted({figure(case.lines[-1]["jobs"]) for case in final.cases.values() if case.text("jobs")}))
    of_jobs = f" of {jobs} jobs" if jobs else ""
    yield f"The best once more, end to end in each of {final.rounds} turns{of_jobs}, in the forms that may suit them:"
    head = ["peer", "set to", "enqueued", "at once", "end to end/s", "least", "most"]
    yield table(head, map(_form, final.cases.values()))
    yield RULE
    yield "\n".join([*_goals(measured, final), *_moonshot(final)])


def _form(case: Case) -> list[str]:
    rates = [line[FINAL] for line in case.lines if FINAL in line]
    figures = [figure(value) for value in (case.median(FINAL), min(rates, default=None), max(rates, default=None))]
    mark = "" if is_sound(case) else ": **not ranked**, jobs were lost or doubled"
    return [case.text(FINAL_OF) + mark, *map(case.text, ("setting", "way", "concurrency")), *figures]


def _goals(measured: Mapping[str, Case], final: Benchmark) -> Iterator[str]:
    for with_result, ours in ((False, OURS), (True, f"{OURS} (results)")):
        forms = finals(final.cases, of=ours)
        mine = quickest(forms, FINAL)
        if mine is None:
            if forms:
                yield f"- {ours}: jobs were lost or doubled, so it ranks nowhere."
            continue
        for durable, least in ((True, 2.0), (False, 1.0)):
            kind = "durable" if durable else "non-durable"
            peer = best(measured, durable=durable, with_result=with_result)
            theirs = quickest(finals(final.cases, of=peer[0]), FINAL) if peer is not None else None
            times = final.ratio(mine[0], theirs[0], FINAL) if theirs is not None else None
            if peer is None or theirs is None or times is None:
                yield f"- {ours}: no {kind} peer was measured beside it."
                continue
            word = "reached" if times >= least else "**missed**"
            yield (
                f"- {ours} end to end, {figure(mine[1])}/s, is {figure(times)} times the best {kind} peer"
                f" ({peer[0]}, {figure(theirs[1])}/s); the goal of {figure(least)} times is {word}."
                f" {_how_sure(final, mine[0], theirs[0], peer=peer[0])}{_as_it_comes(final, ours, theirs[0])}"
            )


def _how_sure(final: Benchmark, mine: str, theirs: str, *, peer: str) -> str:
    """In words: how far the ratio depends on the turn, and on which form of the peer was the best."""
    turns = final.ratios(mine, theirs, FINAL)
    others = [final.ratio(mine, form, FINAL) for form in _sound_forms(final, peer) if form != theirs]
    known = [times for times in others if times is not None]
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


def _moonshot(final: Benchmark) -> Iterator[str]:
    mine = quickest(finals(final.cases, of=OURS), FINAL)
    oban = quickest(finals(final.cases, of="oban"), FINAL)
    times = final.ratio(mine[0], oban[0], FINAL) if mine is not None and oban is not None else None
    goal = f"past 7,000/s on a machine where oban does 2,286, which is {figure(MOONSHOT)} times"
    if mine is None or oban is None or times is None:
        yield f"- The moonshot ({goal}): not measured."
        return
    word = "reached" if times >= MOONSHOT else "**missed**"
    yield (
        f"- The moonshot ({goal}): {figure(mine[1])}/s where oban does {figure(oban[1])}, {figure(times)} times;"
        f" it is {word}."
    )


def _pickup_goals(measured: Mapping[str, Case]) -> Iterator[str]:
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
            word = "reached" if mine <= known[name] else "**missed**"
            yield (
                f"- {OURS} pick-up p99, {figure(mine)} ms, beside the best {kind} ({name}, {figure(known[name])} ms):"
                f" the goal of no more is {word}."
            )


def _what_is_possible(measured: Mapping[str, Case], bare: Bare) -> Iterator[str]:
    peer = best(measured, durable=True, with_result=False)
    if bare.per_second is not None and peer is not None:
        yield (
            f"- In another run, that of the engine, the bare driver calls for a job (insert, claim, complete, nothing"
            f" else) reached {figure(bare.per_second)}/s on this server: {figure(bare.per_second / peer[1])} times the"
            " best durable peer end to end in the table of all, as far as two runs can be compared."
        )
    if bare.p99_ms is not None:
        yield (
            f"- In another run, that of the latency, a bare insert and the claim after it, by one process and with"
            f" nobody to be told, took {figure(bare.p99_ms)} ms at p99 on this server."
        )


def _polls(case: Case) -> bool:
    return PEERS[case.text("peer")].polls if case.text("peer") in PEERS else False
