"""Programs from npm, which `make node` installs into .node; without them the tests that need them are skipped."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import ROOT, end_of

PROGRAMS = ROOT / ".node" / "node_modules" / ".bin"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it wrote."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class NodeProgram:
    """One program of those."""

    path: Path

    @classmethod
    def find(cls, name: str) -> NodeProgram:
        """The program; skips the test when it is not there."""
        path = PROGRAMS / name
        if not path.exists():
            pytest.skip(f"{name} is not installed: `make node` does it where there is npm")
        return cls(path)

    async def run(self, *arguments: str, home: Path, seconds: float = 110.0) -> Ended:
        """Run it to its end. It gets a home folder of its own, where it may keep what it likes."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        process = await asyncio.create_subprocess_exec(
            str(self.path),
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return Ended(*await end_of(process, seconds=seconds))
