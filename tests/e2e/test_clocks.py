"""Machines whose clocks are wrong by minutes, and one whose clock makes a step while jobs run."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from audit import Audit, assert_clean, finished_jobs
from databases import DatabaseProcess
from observers import WITNESSED, Client, Witness
from processes import PROGRAM, ROOT, ServiceProcess, run_command

Settings = Callable[..., dict[str, str]]
SKEWED = str(ROOT / "tests" / "support" / "skewed.py")
SECOND = timedelta(seconds=1)


class WrongClock:
    """The file that says by how much a process is wrong."""

    def __init__(self, file: Path, seconds: float) -> None:
        self.file = file
        self.set(seconds)

    def set(self, seconds: float) -> None:
        # In one step: whoever found the file empty would take its clock for right.
        self.file.with_suffix(".new").write_text(str(seconds))
        self.file.with_suffix(".new").replace(self.file)

    @property
    def program(self) -> list[str]:
        return [SKEWED, str(self.file), str(PROGRAM)]


async def test_machines_whose_clocks_are_wrong_by_minutes_agree_on_the_time_of_the_database(
    http: aiohttp.ClientSession,
    settings_for: Settings,
    database: DatabaseProcess,
    witness: Witness,
    tmp_path: Path,
) -> None:
    """A wrong clock would take every lease of the others for expired, and run what is scheduled minutes too soon."""
    env = settings_for(MAX_RETRIES="10", LEASE_SECONDS="2")
    worker = {name: value for name, value in env.items() if name != "JOBQUEUE_PORT"}
    early, late, fast = (WrongClock(tmp_path / name, by) for name, by in (("a", -300), ("b", 600), ("c", 300)))
    async with (
        ServiceProcess("api", env=env, program=fast.program) as api,
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker, program=early.program),
        ServiceProcess("worker", "--tasks", WITNESSED, env=worker, program=late.program),
    ):
        client, started = Client(http, api.url), datetime.now(UTC)
        ids = await client.bulk([{"type": "work", "payload": {"seconds": 5}} for _ in range(30)])
        later = await client.bulk([{"type": "work", "payload": {}, "delaySeconds": 4} for _ in range(20)])
        await witness.sees(20)
        late.set(3_600)
        jobs = await finished_jobs(database.uri, ids, seconds=60)

    ended = datetime.now(UTC)
    assert_clean(Audit(jobs, [*ids, *later], [], witness))
    assert {job["retryCount"] for job in jobs.values()} == {1}
    assert all(started - SECOND <= job["createdAt"] <= ended + SECOND for job in jobs.values())
    assert all(jobs[job_id]["startedAt"] >= jobs[job_id]["runAt"] for job_id in later)
    assert all(jobs[job_id]["startedAt"] >= started + 3 * SECOND for job_id in later)


async def test_the_doctor_tells_of_a_wrong_clock(settings_for: Settings, tmp_path: Path) -> None:
    wrong = WrongClock(tmp_path / "clock", 90)
    env = settings_for()
    async with ServiceProcess("api", env=env):
        code, report, _ = await run_command("doctor", env=env, program=wrong.program)

    assert code == 1
    # It is measured over the network, and wrong by half of what an answer takes at the most.
    found = re.search(r"^clock-offset: 1 \((\S+) s\)$", report, re.MULTILINE)
    assert found is not None, report
    assert float(found[1]) == pytest.approx(-90, abs=10)
