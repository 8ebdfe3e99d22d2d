"""What the benchmarks check of what they measured: that no job was lost or doubled, and none was answered for only."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import http, witness
from benchmarks.__main__ import main
from benchmarks.audit import AuditFailed, audit_no_second_run, audit_runs
from benchmarks.load import Answered
from benchmarks.peers.backends import Backend
from benchmarks.peers.ranking import is_sound, quickest
from benchmarks.peers.trial import Plan, Trial
from benchmarks.results import Case


@pytest.mark.parametrize("numbers", [[0, 1, 1], [0, 2], [0], []])
def test_lost_and_doubled_runs_fail_where_all_were_to_run(numbers: list[int]) -> None:
    with pytest.raises(AuditFailed):
        audit_runs(numbers, jobs=2)


def test_a_second_run_fails_where_only_some_were_to_run() -> None:
    audit_no_second_run([4, 1, 7])

    with pytest.raises(AuditFailed, match="1 jobs ran more than once"):
        audit_no_second_run([4, 1, 4])


def answered(requests: int, *, failed: int = 0) -> Answered:
    return Answered(requests, seconds=1.0, failed=failed, p50_ms=1.0, p99_ms=1.0)


@pytest.mark.parametrize(
    ("case", "requests", "failed", "stored"),
    [
        ("POST /jobs", 10, 0, 9),
        ("POST /jobs/bulk", 2, 0, 1_999),  # a thousand in each
        ("bare POST and grouped inserts", 10, 0, 9),
        ("bare POST and insert_many of 1,000", 2, 0, 1_999),
        ("GET /jobs/{id}", 10, 1, 0),
    ],
)
def test_what_was_answered_for_and_is_not_stored_fails(case: str, requests: int, failed: int, stored: int) -> None:
    http.audit(case, answered(requests), stored + 1, {})

    with pytest.raises(AuditFailed):
        http.audit(case, answered(requests, failed=failed), stored, {})


def test_a_trial_tells_of_lost_and_doubled_jobs_and_counts_those_that_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the jobs 0 to 3 number 2 never ran, and number 1 three times."""
    seen = witness.Witness(tmp_path, "runs")
    monkeypatch.setenv(witness.VARIABLE, str(seen.path))
    monkeypatch.setattr(witness, "_descriptor", None)
    for number in (witness.WARM_UP, 0, 1, 1, 1, 3):
        witness.record({"n": number})
    plan = Plan(jobs=4, seconds=1.0, concurrency=1, with_result=False)
    trial = Trial("jobqueue", plan, Backend(), tmp_path, tmp_path)

    ran = trial.judge(seen, 4)

    assert (ran, trial.lost, trial.doubled) == (3, 1, 2)


@pytest.mark.parametrize("bad", [{"lost": 1, "doubled": 0}, {"lost": 0, "doubled": 2}])
def test_who_lost_or_doubled_a_job_is_not_the_quickest(bad: dict[str, int]) -> None:
    cases = {"sound": Case([{"rate": 100, "lost": 0, "doubled": 0}]), "quick": Case([{"rate": 900, **bad}])}

    assert quickest(cases, "rate") == ("sound", 100)
    assert not is_sound(cases["quick"])


def test_short_runs_do_not_touch_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build" / "bench").mkdir(parents=True)
    (tmp_path / "build" / "bench" / "results.jsonl").touch()

    done = CliRunner().invoke(main, ["report", "--short"])

    assert done.exit_code == 0, done.output
    assert (tmp_path / "build" / "bench" / "benchmarks.md").exists()
    assert not (tmp_path / "docs").exists()
