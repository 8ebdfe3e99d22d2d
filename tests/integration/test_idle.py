"""What a process costs the database while there is nothing to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from commands import LISTENER, by_name
from pydantic import SecretStr

from jobqueue.app import Engine
from jobqueue.service import NewJob
from jobqueue.settings import Settings
from jobqueue.tasks import Registry

WATCHED_SECONDS = 8.0


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_hundred_idle_slots_cost_about_four_commands_a_second(
    stack: AsyncExitStack, server_uri: str, database_name: str
) -> None:
    registry = Registry()

    @registry.task("any")
    async def anything() -> None: ...

    settings = Settings(mongodb_uri=SecretStr(server_uri), database=database_name, workers=100)
    engine = await Engine.start(settings, stack, registry=registry, mongodb_uri=server_uri, workers=True)
    stack.push_async_callback(engine.drain, 1.0)
    job = await engine.service.enqueue(NewJob(type="any"))
    await engine.service.wait(job.id, seconds=30)

    began = time.monotonic()
    with LISTENER.listening() as commands:
        await asyncio.sleep(WATCHED_SECONDS)  # the cost of a stretch of time needs one to pass
    seconds = time.monotonic() - began

    assert commands, "nothing was counted: the listener is not attached"
    # Each second one look for what waits, one for what is due, one at the signals, and now and then what was heard of.
    assert len(commands) <= 4.2 * seconds, by_name(commands)  # 3.6 to 3.8 when this was written
    looks = [command for command in commands if command.filters[0].get("status") == "pending"]
    assert len(looks) <= seconds + 2, looks
