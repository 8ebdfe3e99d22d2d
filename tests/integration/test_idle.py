"""What a process costs the database while there is nothing to do."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr
from pymongo import monitoring

from jobqueue.app import Engine
from jobqueue.service import NewJob
from jobqueue.settings import Settings
from jobqueue.tasks import Registry

WATCHED_SECONDS = 8.0


class CommandCounter(monitoring.CommandListener):
    """Counts what every client of this process sends to one database (and `hello` to the server)."""

    def __init__(self) -> None:
        self.counting = False
        self.commands: Counter[str] = Counter()
        self._lock = threading.Lock()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.counting:
            with self._lock:
                self.commands[event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


LISTENER = CommandCounter()
monitoring.register(LISTENER)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_hundred_idle_slots_cost_fewer_than_five_commands_a_second(
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

    LISTENER.counting = True
    await asyncio.sleep(WATCHED_SECONDS)  # the cost of a stretch of time needs one to pass
    LISTENER.counting = False

    assert LISTENER.commands, "nothing was counted: the listener is not attached"
    assert sum(LISTENER.commands.values()) < 5 * WATCHED_SECONDS, LISTENER.commands
