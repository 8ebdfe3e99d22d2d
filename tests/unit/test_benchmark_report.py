"""The report of the benchmarks, made of a small results file: medians, ratios of what ran side by side, who wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plots
from benchmarks.report import render, write
from benchmarks.results import Results, read_results

BASE = "ceiling pipelined, pymongo"


def line(benchmark: str, case: str, *, run: str = "new", repeat: int = 0, **figures: Any) -> dict[str, Any]:
    return {"run": run, "benchmark": benchmark, "case": case, "repeat": repeat, **figures}


def peer(case: str, rate: float, *, durable: bool = True, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "end_to_end_per_second": rate,
        "durable": durable,
        "acknowledges": True,
        "with_result": False,
    }
    return line("peers", case, **known, lost=0, doubled=0, version="1", backend="some server", **more)


def form(of: str, way: str, *rates: float) -> list[dict[str, Any]]:
    """A form of a finalist, and what it reached in each turn."""
    known: dict[str, Any] = {"durable": True, "acknowledges": True, "with_result": False, "way": way}
    return [
        line("final", f"{of}, {way}", repeat=turn, final_of=of, final_per_second=rate, **known)
        for turn, rate in enumerate(rates)
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def put(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_only_the_last_run_of_a_benchmark_counts(results: Path) -> None:
    put(results, line("engine", BASE, run="old", per_second=1), line("engine", BASE, per_second=5))

    assert read_results(results)["engine"].median(BASE, "per_second") == 5


def test_a_ratio_is_the_middle_of_the_ratios_within_each_round(results: Path) -> None:
    """Medians of 100, 200, 400 and 50, 180, 100 would say 0.5; side by side it was 0.5, 0.9, 0.25."""
    bases = [line("engine", BASE, repeat=turn, per_second=rate) for turn, rate in enumerate([100, 200, 400])]
    ours = [line("engine", "bulk, pymongo", repeat=turn, per_second=rate) for turn, rate in enumerate([50, 180, 100])]
    put(results, *bases, *ours)

    assert read_results(results)["engine"].ratio("bulk, pymongo", BASE) == 0.5


def test_a_ratio_leaves_out_rounds_in_which_one_of_both_is_missing(results: Path) -> None:
    put(
        results,
        line("engine", BASE, repeat=0, per_second=100),
        line("engine", BASE, repeat=1, per_second=100),
        line("engine", "bulk, pymongo", repeat=1, per_second=80),
    )

    assert read_results(results)["engine"].ratio("bulk, pymongo", BASE) == 0.8


def test_goals_are_told_as_reached_or_missed(results: Path) -> None:
    put(
        results,
        line("engine", BASE, per_second=100),
        line("engine", "bulk, pymongo", per_second=71),
        line("engine", "one by one, pymongo", per_second=30),
    )

    page = render(read_results(results))

    assert "ceiling, pymongo: 71 %; the goal of 70 % is reached." in page
    assert "share of bulk, pymongo: 42 %; the goal of 50 % is **missed**." in page
    assert "share of bulk, motor: not measured" in page


def test_all_goals_stand_in_one_table(results: Path) -> None:
    put(
        results,
        line("engine", BASE, per_second=100),
        line("engine", "bulk, pymongo", per_second=71),
        line("latency", "across processes, change stream", p50_ms=4.0, p99_ms=6.0),
        line("latency", "bare insert and claim", p50_ms=3.0, p99_ms=5.5),
    )

    page = render(read_results(results))

    assert "| Bulk as a share of the pipelined ceiling, pymongo | 70 % | 71 % | - | reached |" in page
    assert "| Bulk as a share of the pipelined ceiling, motor | 70 % | - | - | not measured |" in page
    assert "a few milliseconds, p99 | at most 5.00 ms | 6.00 ms | 5.50 ms | **missed** |" in page
    assert "2 of 8 are reached." in page


def test_a_page_of_what_has_no_goals_has_no_table_of_them(results: Path) -> None:
    put(results, line("growth", "10 slots", per_second=1_000))

    assert "## The goals" not in render(read_results(results))


def test_the_best_durable_peer_is_not_one_that_a_crash_would_lose_jobs_of(results: Path) -> None:
    put(
        results,
        peer("jobqueue", 5_000),
        peer("oban", 2_000),
        peer("dramatiq", 9_000, durable=False),
        {**peer("huey (appendfsync always)", 8_000), "acknowledges": False},
        *form("jobqueue", "many", 5_000),
        *form("oban", "many", 2_000),
        *form("dramatiq", "many", 9_000),
    )

    page = render(read_results(results))

    assert "the best durable peer (oban, 2,000/s): 2.50 times; the goal of 2.00 times is reached." in page
    assert "the best non-durable peer (dramatiq, 9,000/s): 0.56 times; the goal of 1.00 times is **missed**." in page


def test_the_final_is_between_the_quickest_forms_turn_by_turn(results: Path) -> None:
    """Medians of 6,000, 3,000, 5,000 and 2,000, 3,000, 4,000 would say 1.67; turn by turn it was 3, 1, 1.25."""
    put(
        results,
        peer("jobqueue", 9_000),
        peer("oban", 1_000),
        *form("jobqueue", "few", 4_000, 4_000, 4_000),
        *form("jobqueue", "many", 6_000, 3_000, 5_000),
        *form("oban", "few", 1_000, 1_000, 1_000),
        *form("oban", "many", 2_000, 3_000, 4_000),
    )

    page = render(read_results(results))

    assert "| jobqueue |  | many |  | 5,000 | 3,000 | 6,000 |" in page
    assert "jobqueue end to end, 5,000/s, beside the best durable peer (oban, 3,000/s): 1.25 times;" in page
    assert "In single turns 1.00 to 3.00; by its other forms 5.00 to 5.00." in page


def test_beside_the_final_stands_what_the_form_of_the_table_of_all_reaches(results: Path) -> None:
    as_it_comes = {"setting": "Motor", "way": "enqueue_many of 1000", "concurrency": "100 asyncio tasks"}
    put(
        results,
        peer("jobqueue", 9_000),
        peer("oban", 1_000),
        *form("jobqueue", "many", 6_000),
        *({**each, **as_it_comes} for each in form("jobqueue", "as it comes", 3_000)),
        *form("oban", "many", 2_000),
    )

    page = render(read_results(results))

    assert "beside the best durable peer (oban, 2,000/s): 3.00 times;" in page
    assert "(Motor with enqueue_many of 1000 and 100 asyncio tasks) it is 1.50." in page


@pytest.mark.parametrize(("rate", "times", "word"), [(6_000, "3.00", "**missed**"), (7_000, "3.50", "reached")])
def test_the_moonshot_is_judged_by_the_ratio_that_it_was_set_with(
    results: Path, rate: float, times: str, word: str
) -> None:
    put(results, peer("jobqueue", 9_000), *form("jobqueue", "many", rate), *form("oban", "many", 2_000))

    page = render(read_results(results))

    assert f"where oban does 2,000, {times} times; the goal of 3.06 times is {word}." in page


@pytest.mark.parametrize("bad", [{"lost": 1}, {"doubled": 1}])
def test_who_loses_or_doubles_a_job_is_shown_and_never_the_best(results: Path, bad: dict[str, int]) -> None:
    quick = {**peer("saq", 9_000, peer="saq", pickup_p99_ms=0.5), **bad}
    put(
        results,
        peer("jobqueue", 5_000, pickup_p99_ms=2.0),
        quick,
        peer("oban", 2_000, peer="oban", pickup_p99_ms=3.0),
        *form("jobqueue", "many", 5_000),
        *({**each, **bad} for each in form("jobqueue", "more", 8_000)),
        *form("saq", "many", 9_000),
        *form("oban", "many", 2_000),
        *({**each, **bad} for each in form("oban", "more", 4_000)),
    )

    page = render(read_results(results))

    assert "| 9,000 | - | - | 0.50 |" in page, "a figure without an audit is not ahead"
    assert f"| {bad.get('lost', 0)}, {bad.get('doubled', 0)}: **not ranked** |" in page
    assert "beside the best durable peer (oban, 2,000/s): 2.50 times;" in page
    assert "beside the best peer that does not poll (oban): 2.00 ms; the goal of at most 3.00 ms is reached." in page
    assert "| oban: **not ranked**, jobs were lost or doubled |" in page


def test_a_job_lost_in_one_round_of_several_counts(results: Path) -> None:
    rounds = [{**peer("saq", 9_000), "repeat": 0, "lost": 1}, {**peer("saq", 9_000), "repeat": 1}]
    put(results, peer("jobqueue", 5_000), *rounds, peer("oban", 2_000), *form("jobqueue", "many", 5_000))

    page = render(read_results(results))

    assert "1, 0: **not ranked**" in page
    assert "(saq" not in page


def test_without_a_sound_form_of_ours_it_is_said_that_we_rank_nowhere(results: Path) -> None:
    lost = ({**each, "lost": 1} for each in form("jobqueue", "many", 5_000))
    put(results, peer("jobqueue", 5_000), peer("oban", 2_000), *lost, *form("oban", "many", 2_000))

    assert "- jobqueue: jobs were lost or doubled, so it ranks nowhere." in render(read_results(results))


def test_a_final_that_was_broken_off_before_its_first_figure_is_left_out(results: Path) -> None:
    put(results, peer("jobqueue", 5_000), line("final", "environment"))

    assert "The best once more" not in render(read_results(results))


def test_where_a_peer_is_ahead_its_figure_is_bold(results: Path) -> None:
    put(
        results,
        peer("jobqueue", 5_000, pickup_p99_ms=9.0),
        peer("oban", 6_000, pickup_p99_ms=4.0),
        peer("arq", 5_000, pickup_p99_ms=10.0),
        {**peer("huey (results)", 7_000), "with_result": True},
    )

    page = render(read_results(results))

    assert "| **6,000** | - | - | **4.00** |" in page
    assert "| 5,000 | - | - | 10.0 |" in page
    assert "| 7,000 | - | - | - |" in page, "nothing with results was measured beside it"


def test_who_ran_on_another_python_is_named(results: Path) -> None:
    put(results, peer("jobqueue", 5_000, python="3.11.7"), peer("oban", 6_000, python="3.13.0"))

    assert "Ours ran on Python 3.11.7, and so did the others, but for oban on 3.13.0." in render(read_results(results))


def test_who_all_ran_on_the_same_python_are_said_to(results: Path) -> None:
    put(results, peer("jobqueue", 5_000, python="3.13.0"), peer("oban", 6_000, python="3.13.0"))

    assert "Ours ran on Python 3.13.0, and so did all." in render(read_results(results))


def test_a_peer_that_could_not_run_is_not_measured_and_never_beaten(results: Path) -> None:
    missing = line("peers", "oban", not_measured="no Python 3.12")
    put(results, peer("jobqueue", 5_000), missing, *form("jobqueue", "many", 5_000))

    page = render(read_results(results))

    assert "- oban: not measured: no Python 3.12" in page
    assert "no durable peer was measured beside it" in page


def test_a_case_that_fails_leaves_no_figure(results: Path) -> None:
    def fail() -> None:
        with Results(results).case("engine", BASE) as figures:
            figures["per_second"] = 1
            raise AssertionError("the audit found a job twice")

    with pytest.raises(AssertionError):
        fail()

    assert not results.exists()


def test_the_page_and_its_plots_are_written(results: Path, tmp_path: Path) -> None:
    put(results, line("engine", BASE, per_second=100), line("engine", "bulk, pymongo", per_second=71))

    write(results, tmp_path)

    assert "![engine](benchmarks/engine.svg)" in (tmp_path / "benchmarks.md").read_text()
    assert (tmp_path / "benchmarks" / "engine.svg").read_text().startswith("<?xml")


def test_equal_figures_make_equal_plots(results: Path, tmp_path: Path) -> None:
    put(results, line("engine", BASE, per_second=100))
    drawn = []

    for _ in range(2):
        plots.draw(read_results(results), tmp_path)
        drawn.append((tmp_path / "engine.svg").read_bytes())

    assert drawn[0] == drawn[1]


def test_the_pick_up_is_held_against_peers_that_do_not_poll(results: Path) -> None:
    put(
        results,
        peer("jobqueue", 5_000, peer="jobqueue", pickup_p99_ms=6.0),
        peer("huey", 3_000, peer="huey", durable=False, pickup_p99_ms=1.5),
        peer("oban", 2_000, peer="oban", pickup_p99_ms=8.0),
        peer("arq", 1_000, peer="arq", pickup_p99_ms=0.5),
    )

    page = render(read_results(results))

    assert "beside the best peer that does not poll (huey): 6.00 ms; the goal of at most 1.50 ms is **missed**." in page
    assert "beside the best durable one of these (oban): 6.00 ms; the goal of at most 8.00 ms is reached." in page


def test_what_a_bare_insert_and_claim_take_is_said_beside_the_pick_up(results: Path) -> None:
    put(results, peer("oban", 2_000), line("latency", "bare insert and claim", p50_ms=3.5, p99_ms=4.7))

    assert "with nobody to be told, took 4.70 ms at p99 on this server." in render(read_results(results))


def test_posting_is_also_held_against_what_stores_as_plainly_as_can_be(results: Path) -> None:
    put(
        results,
        line("http", "POST /jobs", per_second=5_000, server_cpu_us=150),
        line("http", "bare POST", per_second=12_500, server_cpu_us=60),
        line("http", "bare POST and grouped inserts", per_second=6_250, server_cpu_us=120),
    )

    page = render(read_results(results))

    assert "group commits: 50 % in requests, 50 % in CPU of the server; `POST /jobs` as a share of" in page
    assert "of that: 80 % and 80 %." in page
    assert "in requests | 50 % | 40 % | 50 % | **missed** |" in page


def test_many_jobs_in_a_request_are_held_against_one_by_one_and_so_is_what_stores_as_many_plainly(
    results: Path,
) -> None:
    put(
        results,
        line("http", "POST /jobs", per_second=4_000),
        line("http", "POST /jobs/bulk", jobs_per_second=16_000),
        line("http", "bare POST and insert_many of 1,000", jobs_per_second=20_000),
    )

    page = render(read_results(results))

    assert "beside one by one: 400 %; the goal of 500 % is **missed**." in page
    assert "stores 1,000 as they come, and answers little, beside one by one: 500 %." in page
    assert "beside one by one | 500 % | 400 % | 500 % | **missed** |" in page


def test_posting_is_judged_with_each_driver(results: Path) -> None:
    put(
        results,
        line("http", "bare POST", per_second=10_000, server_cpu_us=70),
        line("http", "POST /jobs", per_second=4_000, server_cpu_us=140),
        line("http", "POST /jobs, pymongo", per_second=6_000, server_cpu_us=100),
    )

    page = render(read_results(results))

    assert "as a share of the bare handler, in requests: 40 %; the goal of 50 % is **missed**." in page
    assert "of the bare handler, in CPU of the server: 50 %; the goal of 70 % is **missed**." in page
    by_pymongo = "with PyMongo instead of Motor as a share of the bare handler"
    assert f"{by_pymongo}, in requests: 60 %; the goal of 50 % is reached." in page
    assert f"{by_pymongo}, in CPU of the server: 70 %; the goal of 70 % is reached." in page


def test_the_commands_are_those_by_which_the_figures_were_made(results: Path) -> None:
    rounds = [line("engine", BASE, repeat=turn, per_second=100) for turn in range(3)]
    meant = line("engine", "environment", repeats=5)
    put(results, meant, *rounds, line("latency", "local", p50_ms=4.0), line("growth", "10 slots", per_second=1_000))

    page = render(read_results(results))

    assert "python -m benchmarks engine --repeats 3\npython -m benchmarks latency growth --repeats 1\n" in page
    assert "| engine | 3 rounds |" in page
    assert "## The engine and its ceiling\n\nThese are medians of 3 rounds" in page
    assert "## Latency when idle\n\nThere was one round: these are single values." in page


def test_a_few_milliseconds_across_processes_are_judged(results: Path) -> None:
    put(results, line("latency", "across processes, change stream", p50_ms=4.0, p99_ms=6.0))

    page = render(read_results(results))

    assert "a few milliseconds, p50: 4.00 ms; the goal of at most 5.00 ms is reached." in page
    assert "a few milliseconds, p99: 6.00 ms; the goal of at most 5.00 ms is **missed**." in page


def test_what_each_server_promises_is_said_beside_the_peers(results: Path) -> None:
    told: dict[str, Any] = {"durability": "everything is synced"}
    put(results, peer("jobqueue", 5_000, **told), peer("oban", 2_000, **told), peer("saq", 1_000, durability="nothing"))

    assert "Durability: some server: everything is synced; some server: nothing." in render(read_results(results))


def test_backlogs_have_the_queries_of_finished_jobs_and_say_whose_the_memory_is(results: Path) -> None:
    queries: dict[str, Any] = {
        f"{who}{verb}_ms": 1.0 for who in ("", "bare_") for verb in ("look", "claim", "list", "count")
    }
    put(results, line("growth", "backlog of 1000: queries", **queries), line("growth", "backlog of 1000", server_mb=90))

    page = render(read_results(results))

    assert "| backlog of 1000 | 1.00 / 1.00 |" in page
    assert "memory is of that alone" in page


def test_the_published_page_is_the_rendering_of_the_published_figures() -> None:
    docs = Path(__file__).parents[2] / "docs"
    pictures = {path.stem: path.name for path in (docs / "benchmarks").glob("*.svg")}

    assert (docs / "benchmarks.md").read_text() == render(read_results(docs / "benchmarks" / "results.jsonl"), pictures)
