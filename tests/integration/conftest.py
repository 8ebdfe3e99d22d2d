from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from engines import Engines
from pydantic import SecretStr

from jobqueue.settings import Settings


@pytest.fixture
def settings(server_uri: str, database_name: str) -> Settings:
    return Settings(
        mongodb_uri=SecretStr(server_uri),
        database=database_name,
        lease_seconds=2,
        poll_seconds=0.3,
        backoff_base_seconds=0.05,
        workers=10,
    )


@pytest.fixture
async def engines(settings: Settings) -> AsyncIterator[Engines]:
    engines = Engines(settings)
    yield engines
    await engines.aclose()
