"""What is this process's own where a task forks without exec, as multiprocessing does.

asyncio has the numbers of signals written into a socket, and a fork writes into the same one: what a task sends to a
process that it forked would stop the service, and what a terminal or systemd sends to all of them would count as often
as there are.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from signal import SIG_BLOCK, SIG_DFL, SIG_SETMASK, SIGINT, SIGTERM, Handlers

_DEFAULTS: Mapping[int, Callable[..., object] | Handlers] = {SIGINT: signal.default_int_handler, SIGTERM: SIG_DFL}
_mask = threading.local()


def keep_stop_signals() -> None:
    """From now on SIGINT and SIGTERM to a fork are heard by it alone, and do there what they do in any Python program.

    None gets in between the fork and that."""
    os.register_at_fork(before=_hold_signals_up, after_in_parent=_let_signals_come, after_in_child=_part_with_signals)


def _hold_signals_up() -> None:
    _mask.before = signal.pthread_sigmask(SIG_BLOCK, _DEFAULTS)


def _let_signals_come() -> None:
    signal.pthread_sigmask(SIG_SETMASK, _mask.before)


def _part_with_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number, handler in _DEFAULTS.items():
        signal.signal(number, handler)
    _let_signals_come()
