"""Where things are, where a mistake would only show later: `cmd` is also a module of the standard library."""

from __future__ import annotations

import cmd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import __version__

ROOT = Path(__file__).parents[2]
PROGRAM = str(ROOT / "cmd" / "jobqueue")

CTRL_C_WHILE_LOADING = f"""
import os, runpy, signal, sys

class CtrlC:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "jobqueue.settings":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC)
sys.argv = ["jobqueue", "--version"]
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
    ("before", "code", "output"),
    [
        ("", -signal.SIGINT, ""),
        # as for what a script starts with &
        ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)", 0, f"jobqueue {__version__}\n"),
    ],
)
def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(before: str, code: int, output: str) -> None:
    program = subprocess.run(
        [sys.executable, "-c", before + CTRL_C_WHILE_LOADING], capture_output=True, text=True, check=False
    )

    assert (program.returncode, program.stdout, program.stderr) == (code, output, "")
