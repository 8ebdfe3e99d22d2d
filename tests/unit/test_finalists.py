"""Who runs again in the final of the peers' benchmark, and in which forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.peers.entries import Entry
from benchmarks.peers.final import Form, figures_of_peers, finalists, forms_of
from benchmarks.results import Case, Results

OURS = Entry("jobqueue", durable=True, with_result=False)
OBAN = Entry("oban", durable=True, with_result=False)


def measured(entry: Entry, rate: float | None, **more: Any) -> tuple[Entry, Case]:
    known = {"durable": entry.durable, "with_result": entry.with_result, "acknowledges": True}
    figures = {"end_to_end_per_second": rate} if rate is not None else {"not_measured": "no Python 3.12"}
    return entry, Case([known | figures | more])


def test_the_best_durable_peer_and_the_best_other_one_play_against_this_project() -> None:
    taskiq, always = (Entry("taskiq", durable=durable, with_result=False) for durable in (False, True))
    cases = dict(
        [
            measured(OURS, 5_000),
            measured(Entry("jobqueue over HTTP", durable=True, with_result=False), 9_000),
            measured(OBAN, 2_900),
            measured(taskiq, 2_800),
            measured(always, 2_200),
            measured(Entry("huey", durable=True, with_result=False), 3_000, acknowledges=False),
        ]
    )

    assert [entry.case for entry in finalists(cases)] == ["jobqueue", "oban", "huey (appendfsync always)"]


def test_those_with_results_play_among_themselves() -> None:
    ours, oban = (Entry(peer, durable=True, with_result=True) for peer in ("jobqueue", "oban"))
    cases = dict([measured(OURS, 5_000), measured(ours, 4_000), measured(OBAN, 2_900), measured(oban, 2_800)])

    assert list(finalists(cases)) == [OURS, OBAN, ours, oban]


def test_what_could_not_be_measured_does_not_play() -> None:
    assert list(finalists(dict([measured(OURS, 5_000), measured(OBAN, None)]))) == [OURS]


def test_the_two_fastest_ways_to_enqueue_are_tried_with_each_number_of_jobs_at_once() -> None:
    _, case = measured(OBAN, 2_900, enqueue_by_way={"one by one": 1_000, "many of 100": 4_000, "many of 1000": 4_500})

    assert forms_of(OBAN, case) == [
        Form(OBAN, way, at_once) for way in ("many of 1000", "many of 100") for at_once in (100, 200, 400)
    ]


def test_each_setting_of_a_peer_is_tried_and_told_apart() -> None:
    _, case = measured(OURS, 5_000, enqueue_by_way={"many": 4_000})

    forms = forms_of(OURS, case)

    assert [form.setting for form in forms] == ["Motor"] * 3 + ["PyMongo"] * 3
    assert len({form.case for form in forms}) == len(forms)


def test_without_figures_of_the_peers_it_is_said_what_to_run_first(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.begin("final")
    bench = Bench("final", Database("", server="", durability="", embedded=False, pid=None), results, 1, short=True)

    with pytest.raises(ValueError, match=r"has no figures of the peers; run `python -m benchmarks peers` first"):
        figures_of_peers(bench)
