"""Where things are, where a mistake would only show later: `cmd` is also a module of the standard library."""

from __future__ import annotations

import cmd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import __version__
from jobqueue.cli import INTERRUPTED

ROOT = Path(__file__).parents[2]
PROGRAM = str(ROOT / "cmd" / "jobqueue")

CTRL_C_WHEN_IMPORTED = f"""
import os, runpy, signal, sys

ARRIVES_AT, *arguments = sys.argv[1:]

class CtrlC:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == ARRIVES_AT:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC)
sys.argv = ["jobqueue", *arguments]
runpy.run_path({PROGRAM!r}, run_name="__main__")
"""


def test_cmd_is_the_module_of_the_standard_library() -> None:
    """pdb and the debuggers of editors import it; a package of that name in the project's root would break them."""
    assert cmd.__file__ is not None
    assert ROOT not in Path(cmd.__file__).parents
    imported = subprocess.run(
        [sys.executable, "-c", "import pdb, cmd; cmd.Cmd"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert imported.stderr == ""


def test_below_cmd_are_programs_and_nothing_else() -> None:
    files = {path.relative_to(ROOT / "cmd") for path in (ROOT / "cmd").rglob("*.py")}

    assert {(len(path.parts), path.name) for path in files} == {(2, "__main__.py")}


def test_the_program_runs_by_its_path_from_anywhere(tmp_path: Path) -> None:
    program = subprocess.run(
        [sys.executable, PROGRAM, "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert program.stdout == f"jobqueue {__version__}\n"


@pytest.mark.parametrize(
    ("before", "arrives_at", "command", "ending"),
    [
        ("", "jobqueue.settings", "--version", (-signal.SIGINT, "", "")),
        ("", "uvloop", "serve", (INTERRUPTED, "", "\n")),
        # as for what a script starts with &
        (
            "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
            "jobqueue.settings",
            "--version",
            (0, f"jobqueue {__version__}\n", ""),
        ),
    ],
    ids=["loading", "about to serve", "ignored"],
)
@pytest.mark.usefixtures("nothing_is_set")
def test_ctrl_c_before_anything_runs_ends_the_program_without_a_word(
    before: str, arrives_at: str, command: str, ending: tuple[int, str, str]
) -> None:
    program = subprocess.run(
        [sys.executable, "-c", before + CTRL_C_WHEN_IMPORTED, arrives_at, command],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (program.returncode, program.stdout, program.stderr) == ending
