from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from databases import DatabaseProcess
from observers import Witness


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "witness")


@pytest.fixture
def settings_for(database: DatabaseProcess, witness: Witness) -> Callable[..., dict[str, str]]:
    """The environment of a service process on the test's database. A busy machine may keep a process from
    running for seconds, and leases outlast that; tests of what happens when one is over set short ones."""

    def build(**changes: str) -> dict[str, str]:
        defaults = {
            "MONGODB_URI": database.uri,
            "PORT": "0",
            "LEASE_SECONDS": "30",
            "POLL_SECONDS": "0.3",
            "WORKERS": "20",
            "TEST_WITNESS": str(witness.path),
            "TEST_LET_GO": str(witness.end_of_holding),
        }
        return {f"JOBQUEUE_{name}": value for name, value in (defaults | changes).items()}

    return build
