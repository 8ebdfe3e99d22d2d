"""The event loop of a process: which one, and the signals that stop what runs in it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

EXIT_AT_ONCE = 130


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed; it exists for most systems, not for all."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def on_stop_signals(stop: Callable[[], object], *, at_once: Callable[[], object] = lambda: None) -> None:
    """From now on `stop` is called for the first SIGINT or SIGTERM; for the next one `at_once`, and the process ends.

    Called in the running event loop, as both are."""
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked:
            at_once()
            os._exit(EXIT_AT_ONCE)
        asked = True
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
