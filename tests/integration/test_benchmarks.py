"""The benchmarks themselves, in their shortest form: they run, they audit, and the report can read their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ceiling, engine
from benchmarks.audit import AuditFailed, audit_database
from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.in_process import NoOps, bench_settings, running_engine
from benchmarks.report import render
from benchmarks.results import Results, read_results
from jobqueue.service import NewJob

JOBS = 200


@pytest.fixture
def bench(server_uri: str, tmp_path: Path) -> Bench:
    database = Database(server_uri, server="the server of the tests", durability="", embedded=True, pid=None)
    return Bench("engine", database, Results(tmp_path / "results.jsonl"), repeats=1, short=True)


async def test_ceiling_and_engine_run_side_by_side_and_are_reported(bench: Bench, tmp_path: Path) -> None:
    for driver in ceiling.DRIVERS:
        await ceiling.measure(bench, JOBS, driver=driver, in_flight=ceiling.IN_FLIGHT, repeat=0)
        case = f"bulk, {driver}"
        await engine.measure(bench, case, engine.enqueue_in_bulk, JOBS, driver=driver, repeat=0)
    await engine.measure(bench, "one by one, motor", engine.enqueue_one_by_one, JOBS, driver="motor", repeat=0)
    await engine.measure_drain(bench, JOBS, driver="motor", repeat=0)

    found = read_results(tmp_path / "results.jsonl")["engine"]
    assert set(found.cases) == {
        *(f"ceiling pipelined, {driver}" for driver in ceiling.DRIVERS),
        *(f"bulk, {driver}" for driver in ceiling.DRIVERS),
        *("one by one, motor", "drain, motor"),
    }
    assert all(case.median("per_second") for case in found.cases.values())
    assert "## The engine and its ceiling" in render({"engine": found})


async def test_the_audit_finds_a_job_that_did_not_complete(bench: Bench) -> None:
    async with bench.database.fresh() as name:
        settings = bench_settings(bench.database, name)
        async with running_engine(settings, NoOps(0).registry, workers=False) as without_workers:
            await without_workers.service.enqueue(NewJob(type="noop"))

        with pytest.raises(AuditFailed, match="pending"):
            await audit_database(bench.database.uri, name, completed=1)
