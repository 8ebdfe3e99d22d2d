"""The virtual environments of the peers, with pinned versions: one cannot hold them all (three redis-py are asked for).

python -m benchmarks setup      makes those that are missing, under JOBQUEUE_BENCH_PEERS or ~/.cache/jobqueue-peers

Each is of the Python that runs this, so that all are compared on the same one, unless it is too old for a peer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POSTGRES_CLIENT = ("psycopg[binary]==3.3.9", "psycopg-pool==3.3.3")
NEWER_PYTHONS = ("python3.13", "python3.12")


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed together. `least` is the oldest Python that its packages take."""

    name: str
    packages: Sequence[str]
    least: tuple[int, int] = (3, 11)

    @property
    def python(self) -> Path:
        """The interpreter, once the environment is made."""
        return _home() / self.name / "bin" / "python"

    def make(self) -> str | None:
        """Install it with this Python, or a newer one where it is too old; returns why that cannot be, if so."""
        base = _base_python(self.least)
        if base is None:
            return f"no Python {'.'.join(map(str, self.least))} or newer was found (set JOBQUEUE_BENCH_PYTHON)"
        if not self.python.exists() or _version_of(self.python) != _version_of(base):
            subprocess.run([base, "-m", "venv", "--clear", self.python.parents[1]], check=True)
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([self.python, *pip, *self.packages], check=True)
        return None


ENVIRONMENTS: Mapping[str, Environment] = {
    each.name: each
    for each in (
        Environment(
            "redis8",
            (
                *("taskiq==0.13.0", "taskiq-redis==1.2.4", "dramatiq[redis]==2.2.1", "celery[redis]==5.7.0"),
                *("rq==3.0.0", "huey==3.5.4", "procrastinate==3.10.0", "redis==8.1.0", "hiredis==3.5.0"),
                *(*POSTGRES_CLIENT, "uvloop==0.23.0"),
            ),
        ),
        Environment(
            "saq",
            (
                "saq[hiredis,redis]==0.26.4",
                "typing-extensions==4.15.0",
                "redis==7.4.1",
                "hiredis==3.5.0",
            ),
        ),
        Environment("arq", ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0")),
        Environment("oban", ("oban==0.7.0", *POSTGRES_CLIENT, "uvloop==0.23.0"), least=(3, 12)),
    )
}


def make_all() -> Iterator[tuple[str, str | None]]:
    """Make every environment; tells of each why it could not be made, or None."""
    for environment in ENVIRONMENTS.values():
        yield environment.name, environment.make()


def _home() -> Path:
    return Path(os.environ.get("JOBQUEUE_BENCH_PEERS") or Path.home() / ".cache" / "jobqueue-peers")


def _base_python(least: tuple[int, int]) -> str | None:
    if sys.version_info[:2] >= least:
        return sys.executable
    return next((python for python in _newer_pythons() if _is_at_least(python, least)), None)


def _newer_pythons() -> Iterator[str]:
    named = [os.environ.get("JOBQUEUE_BENCH_PYTHON"), *NEWER_PYTHONS]
    yield from (found for name in named if name and (found := shutil.which(name)))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(path) for path in sorted(pyenv.glob("versions/3.1[2-9]*/bin/python"), reverse=True))


def _version_of(python: str | Path) -> str:
    return subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout


def _is_at_least(python: str, least: tuple[int, int]) -> bool:
    check = f"import sys; sys.exit(sys.version_info < {least})"
    return subprocess.run([python, "-c", check], check=False, stderr=subprocess.DEVNULL).returncode == 0
