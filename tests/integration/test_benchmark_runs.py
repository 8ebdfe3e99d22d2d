"""One measurement of each benchmark that starts processes, as small as can be: it runs, and its audit agrees.

How long it takes is the start of the processes; nothing is held to a figure.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import blocking, cases, growth, http, latency
from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.load import Load
from benchmarks.peers.entries import Entry
from benchmarks.results import Benchmark, Results, read_results

JOBS = 100


@pytest.fixture
def bench(server_uri: str, tmp_path: Path) -> Bench:
    database = Database(server_uri, server="the server of the tests", durability="", embedded=True, pid=None)
    return Bench("any", database, Results(tmp_path / "results.jsonl"), repeats=1, short=True)


def found(bench: Bench) -> Benchmark:
    return read_results(bench.results.path)["any"]


async def test_requests_are_answered_and_what_they_bring_is_stored(bench: Bench) -> None:
    async with http.servers(bench) as servers:
        await http.measure(bench, cases.POST, servers, servers.service, http.SINGLE, seconds=1.0, repeat=0)
        grouped = Load("POST", ["/grouped"], http.SINGLE.body)
        await http.measure(bench, cases.GROUPED, servers, servers.bare, grouped, seconds=1.0, repeat=0)

    assert found(bench).ratio(cases.POST, cases.GROUPED)
    assert found(bench).cases[cases.POST].text("generator")


async def test_jobs_start_here_and_in_a_worker_that_polls(bench: Bench) -> None:
    await latency.bare(bench, 3, 0)
    await latency.local(bench, 3, 0)
    await latency.across(bench, "polling", 2, 0, latency.polling_worker, longer=latency.POLL_SECONDS)

    cases = found(bench).cases
    assert all(cases[name].median("p99_ms") for name in ("bare insert and claim", "local", "polling"))


async def test_finished_jobs_and_a_backlog_have_the_same_figures(bench: Bench) -> None:
    await growth.with_finished(bench, JOBS, 0)
    await growth.with_backlog(bench, JOBS, 0)

    finished, waiting = (found(bench).cases[f"{each}: queries"].lines[0] for each in ("100 finished", "backlog of 100"))
    assert finished.keys() == waiting.keys() >= {"look_ms", "bare_look_ms", "claim_ms", "list_ms", "count_ms"}
    assert found(bench).median("100 finished: engine", "process_mb")
    assert found(bench).median("backlog of 100", "process_mb")


async def test_a_busy_process_answers_and_keeps_its_leases(bench: Bench) -> None:
    await blocking.measure(bench, "in a process", "spin-process", seconds=1.0, repeat=0)

    assert found(bench).median("in a process", "worst_ms")


async def test_a_trial_counts_lost_and_doubled_jobs(bench: Bench) -> None:
    entry = Entry("jobqueue", durable=True, with_result=False)

    figures = await entry.measure(bench, ["--jobs", str(JOBS), "--end-to-end", "enqueue_many of 100"])

    assert figures.get("not_measured") is None, figures
    assert (figures["jobs"], figures["lost"], figures["doubled"]) == (JOBS, 0, 0)
    assert figures["end_to_end_per_second"] > 0
