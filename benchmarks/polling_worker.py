"""A worker process as on a server without change streams: `python -m benchmarks.polling_worker`.

As `jobqueue worker --tasks benchmarks.tasks` in all else; the settings come from the environment."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from benchmarks.in_process import Polling, running_engine
from jobqueue import logs
from jobqueue.loading import load
from jobqueue.settings import load_settings


async def main() -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running_engine(load_settings(), load(["benchmarks.tasks"]), workers=True, store=Polling):
        await stop.wait()


if __name__ == "__main__":
    logs.configure("WARNING", "json")
    uvloop.run(main())
