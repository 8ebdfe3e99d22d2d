"""The demo as people run it: it ends by itself, its numbers are those of the service, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from databases import missing_server
from observers import eventually
from processes import PROGRAM

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo may have temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path: Path, folder: Path, port: int) -> Iterator[Start]:
    """Starts the demo where a user has a service set up, wrongly, which it must leave alone."""
    if reason := missing_server():
        pytest.skip(reason)
    with ExitStack() as stack:
        settings = {
            "JOBQUEUE_MONGODB_URI": f"mongodb://127.0.0.1:{port}/",
            "JOBQUEUE_DATA_DIR": str(tmp_path / "data of the user"),
            "JOBQUEUE_LEASE_SECONDS": "soon",
            "TMPDIR": str(folder),
        }

        def start() -> subprocess.Popen[str]:
            demo = subprocess.Popen(
                [sys.executable, str(PROGRAM), "demo"],
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(demo)
            stack.callback(demo.kill)
            return demo

        yield start


def read_until(demo: subprocess.Popen[str], pattern: str) -> str:
    """The group that this matches in the first line that has it."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(demo.communicate())


def leftovers(tmp_path: Path, folder: Path) -> list[Path]:
    return [*folder.iterdir(), *tmp_path.glob("data*")]


async def test_it_shows_everything_ends_by_itself_and_counts_what_the_service_counts(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path, folder: Path
) -> None:
    demo = start()
    url = read_until(demo, r"(http://\S+);")
    read_until(demo, r"(a flood of)")

    async def others_see_its_jobs() -> bool:
        async with http.get(f"{url}/metrics") as answer:
            metrics = await answer.json()
        return 0 < metrics["processed"] <= 134 and bool(metrics["idempotency_keys"] == 1)

    await eventually(others_see_its_jobs, seconds=20, what="jobs that the service has counted")
    shown, errors = demo.communicate(timeout=100)

    assert (demo.returncode, errors) == (0, "")
    rows = {
        label: (int(here), int(there))
        for label, here, there in re.findall(r"^\W*(\w[\w ]+?)\W+(\d+)\W+(\d+)\W*$", shown, re.M)
    }
    assert rows == {
        "jobs accepted": (135, 135),
        "of them completed": (134, 134),
        "of them dead letters": (1, 1),
        "attempts tried again": (8, 8),
        "idempotency keys": (1, 1),
    }
    assert "the carrier is back, one is redriven: completed, its 3 failures are kept" in shown
    assert re.search(r"Refused: 1 duplicate with 409, [1-9]\d* posts with 503", shown)
    assert leftovers(tmp_path, folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_in_order_and_leaves_nothing_behind(
    start: Start, tmp_path: Path, folder: Path, number: signal.Signals
) -> None:
    demo = start()
    read_until(demo, r"(a flood of)")

    os.killpg(demo.pid, number)  # as the terminal does: to the whole group
    shown, errors = demo.communicate(timeout=60)

    assert (demo.returncode, errors) == (130, "")
    assert shown.endswith("Stopped early; nothing is left behind.\n")
    assert leftovers(tmp_path, folder) == []
