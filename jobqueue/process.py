"""One process of the service: it listens, waits for a signal, and stops in order.

Stopping (SIGINT, SIGTERM), in this order: `/readyz` and every enqueue answer 503 while reads go on, and whoever
waits for a job is answered; the pool claims nothing more, running jobs get the grace period, the rest is given
back; group commits are flushed; sockets close; then the database connection. A second signal ends the process at
once. Exit code 0, even when a thread of a task does not return.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from jobqueue import __version__
from jobqueue.api.handlers import Limits
from jobqueue.api.routes import build_api, build_health_api
from jobqueue.app import Engine
from jobqueue.errors import ConfigurationError
from jobqueue.settings import Settings
from jobqueue.tasks import Registry

KEEPALIVE_SECONDS = 75.0
DEFAULT_PORT = 8080
EXIT_AT_ONCE = 130

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known once the process is up. `base_url` is None when it does not listen."""

    base_url: str | None
    mongodb_uri: str
    simulate: bool


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed; it exists for most systems, not for all."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def run(
    settings: Settings,
    *,
    http: bool,
    workers: bool,
    registry: Registry,
    mongodb_uri: str,
    simulate: bool,
    on_ready: Callable[[Ready], None],
) -> int:
    """Run until a signal asks to stop; returns the exit code. Otherwise as `serving`."""
    stop = _stop_on_signals()
    async with serving(
        settings, http=http, workers=workers, registry=registry, mongodb_uri=mongodb_uri, simulate=simulate
    ) as ready:
        on_ready(ready)
        await stop.wait()
    return 0


@asynccontextmanager
async def serving(
    settings: Settings, *, http: bool, workers: bool, registry: Registry, mongodb_uri: str, simulate: bool
) -> AsyncIterator[Ready]:
    """The service, up and running; when the block is left it is stopped in order. `http` serves the whole API;
    without it only the health routes are served, and only where a port is set.

    Raises `Unavailable`, `SchemaConflict` or `ConfigurationError` when the start fails."""
    calm_the_garbage_collector()
    async with AsyncExitStack() as stack:
        engine = await Engine.start(settings, stack, registry=registry, mongodb_uri=mongodb_uri, workers=workers)
        base_url = await _listen(settings, stack, engine, http=http)
        log.info("started", url=base_url, worker_id=engine.worker_id, version=__version__)
        try:
            yield Ready(base_url, mongodb_uri, simulate)
        finally:
            log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
            await engine.drain(settings.shutdown_grace_seconds)
    log.info("stopped")


async def _listen(settings: Settings, stack: AsyncExitStack, engine: Engine, *, http: bool) -> str | None:
    if not http and settings.port is None:
        return None
    runner = web.AppRunner(_api(settings, engine, http=http), access_log=None, keepalive_timeout=KEEPALIVE_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    port = DEFAULT_PORT if settings.port is None else settings.port
    try:
        await web.TCPSite(runner, settings.host, port).start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"cannot listen on {settings.host}:{port} ({reason}); set JOBQUEUE_PORT") from error
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _api(settings: Settings, engine: Engine, *, http: bool) -> web.Application:
    if not http:
        return build_health_api(engine.service, clock=engine.clock, metrics=engine.metrics)
    limits = Limits(max_payload_bytes=settings.max_payload_bytes, max_bulk_bytes=settings.max_bulk_bytes)
    return build_api(engine.service, clock=engine.clock, limits=limits, metrics=engine.metrics)


def calm_the_garbage_collector() -> None:
    """What is loaded by now stays, and jobs in flight are many small objects that go without cycles: looking through
    them at CPython's usual rhythm (every 700 new ones) took a quarter of the time spent on a job."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(EXIT_AT_ONCE)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop
