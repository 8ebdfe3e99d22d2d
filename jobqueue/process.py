"""One process of the service: it listens, waits for a signal, and stops in order.

Stopping (SIGINT, SIGTERM), in this order: `/readyz` and every enqueue answer 503 while reads go on, and whoever
waits for a job is answered; the pool claims nothing more, running jobs get the grace period, the rest is given
back; group commits are flushed; no more connections are taken, and requests that are under way get a few seconds
more; then the database connection closes. A second signal ends the process at once. Exit code 0, even when a thread
of a task does not return.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from jobqueue import __version__
from jobqueue.api.handlers import BodyLimits
from jobqueue.api.routes import build_api, build_health_api
from jobqueue.api.serving import ApiRunner
from jobqueue.app import Engine
from jobqueue.loop import on_stop_signals
from jobqueue.ports import DEFAULT_PORT, refusal, url_of
from jobqueue.settings import Settings
from jobqueue.siblings import Place
from jobqueue.tasks import Registry

KEEPALIVE_SECONDS = 75.0
"""From a connection's beginning, or its last answer, until the next request is there with all its headers."""
ANSWER_SECONDS = 3.0
"""At the end: time for requests that are under way to be answered. aiohttp lets it pass twice, the second time for
those whose body it broke off: clients that send or read slowly hold up the end for six seconds."""

log = structlog.get_logger(__name__)


async def run(
    settings: Settings,
    *,
    http: bool,
    workers: bool,
    registry: Registry,
    mongodb_uri: str,
    on_ready: Callable[[str | None], None],
    place: Place | None = None,
) -> int:
    """Run until a signal asks to stop; returns the exit code. Otherwise as `serving`."""
    stop = asyncio.Event()
    on_stop_signals(stop.set)
    async with serving(
        settings, http=http, workers=workers, registry=registry, mongodb_uri=mongodb_uri, place=place
    ) as url:
        on_ready(url)
        await stop.wait()
    return 0


@asynccontextmanager
async def serving(
    settings: Settings,
    *,
    http: bool,
    workers: bool,
    registry: Registry,
    mongodb_uri: str,
    place: Place | None = None,
) -> AsyncIterator[str | None]:
    """The service, up and running; when the block is left it is stopped in order. Yields its URL if it listens: `http`
    serves the whole API; without it only the health routes are served, and only where a port is set. With a `place`
    among several processes the port is shared with them, and so are the metrics.

    Raises `Unavailable`, `SchemaConflict` or `ConfigurationError` when the start fails."""
    calm_the_garbage_collector()
    async with AsyncExitStack() as stack:
        engine = await Engine.start(settings, stack, registry=registry, mongodb_uri=mongodb_uri, workers=workers)
        if place is not None:
            await place.tell(engine.metrics.snapshot, stack)
            engine.metrics.show_all(place.ask)
        url = await _listen(settings, stack, engine, http=http, shared=place is not None)
        log.info("started", url=url, worker_id=engine.worker_id, version=__version__)
        try:
            yield url
        finally:
            log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
            await engine.drain(settings.shutdown_grace_seconds)
    log.info("stopped")


async def _listen(settings: Settings, stack: AsyncExitStack, engine: Engine, *, http: bool, shared: bool) -> str | None:
    if not http and settings.port is None:
        return None
    runner = ApiRunner(
        _api(settings, engine, http=http),
        access_log=None,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=ANSWER_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    port = DEFAULT_PORT if settings.port is None else settings.port
    try:
        await web.TCPSite(runner, settings.host, port, reuse_port=shared).start()
    except OSError as error:
        raise refusal(settings.host, port, error) from error
    return url_of(*runner.addresses[0][:2])


def _api(settings: Settings, engine: Engine, *, http: bool) -> web.Application:
    if not http:
        return build_health_api(engine.service, clock=engine.clock, metrics=engine.metrics)
    limits = BodyLimits(max_payload_bytes=settings.max_payload_bytes, max_bulk_bytes=settings.max_bulk_bytes)
    return build_api(engine.service, clock=engine.clock, limits=limits, metrics=engine.metrics)


def calm_the_garbage_collector() -> None:
    """What is loaded by now stays, and jobs in flight are many small objects that go without cycles: looking through
    them at CPython's usual rhythm (every 700 new ones) took a quarter of the time spent on a job."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
