"""Puts the demo together: a database in a temporary folder, the real service on it, and the script before it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from rich.console import Console

from jobqueue.builtin import simulation
from jobqueue.demo.client import Client, DemoFailed
from jobqueue.demo.screen import Screen
from jobqueue.demo.script import LOOK_SECONDS, MAX_PENDING, Script
from jobqueue.demo.shop import Carrier, shop_tasks
from jobqueue.embedded import EmbeddedServer
from jobqueue.process import serving
from jobqueue.settings import Settings

FIRST_DATABASE_PORT = 27527
"""Away from where `serve` looks for a port, so that neither takes one that the other would find again."""
MOST_SECONDS = 120.0


async def demo(console: Console) -> bool:
    """Play it; returns whether it came to its end. SIGINT and SIGTERM stop it, in order. Raises `DemoFailed`."""
    playing = asyncio.current_task()
    assert playing is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    try:
        async with asyncio.timeout(MOST_SECONDS):
            await _play(console)
    except TimeoutError:
        raise DemoFailed(f"the demo did not come to its end within {MOST_SECONDS:.0f} seconds") from None
    except asyncio.CancelledError:
        console.print("Stopped early; nothing is left behind.")
        return False
    return True


async def _play(console: Console) -> None:
    carrier = Carrier()
    console.print("Starting a service with a database in a temporary folder ...")
    async with _service(carrier) as url, aiohttp.ClientSession(url) as http:
        console.print(f"It listens at {url}; it and the database go when this ends.", highlight=False)
        client = Client(http)
        with Screen(console, max_pending=MAX_PENDING) as screen:
            script = Script(client, screen, carrier)
            async with _statistics(client, screen):
                here, there = await script.play()
    screen.summarise(here, there, duplicates=script.duplicates, refused=script.refused)
    if here != there or not here.all_ended:
        raise DemoFailed("these numbers do not agree")


@asynccontextmanager
async def _service(carrier: Carrier) -> AsyncIterator[str]:
    """A whole service of the demo's own; yields its URL."""
    with TemporaryDirectory(prefix="jobqueue-demo-", ignore_cleanup_errors=True) as folder:
        async with (
            EmbeddedServer(Path(folder), first_port=FIRST_DATABASE_PORT) as server,
            serving(
                _settings(),
                http=True,
                workers=True,
                registry=simulation(shop_tasks(carrier)),
                mongodb_uri=server.uri,
            ) as url,
        ):
            assert url is not None
            yield url


class _Settings(Settings):
    """Settings that do not come from the environment, which is meant for the user's service."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _settings() -> Settings:
    return _Settings(
        port=0,
        workers=4,
        max_pending=MAX_PENDING,
        backoff_base_seconds=0.5,
        backoff_max_seconds=2.0,
        shutdown_grace_seconds=2.0,
    )


@asynccontextmanager
async def _statistics(client: Client, screen: Screen) -> AsyncIterator[None]:
    """Show the service's statistics again and again while the block runs."""

    async def show() -> None:
        while True:
            screen.show(await client.metrics())
            await asyncio.sleep(LOOK_SECONDS)

    showing = asyncio.create_task(show(), name="show statistics")
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait([showing])
    if not showing.cancelled():
        showing.result()
