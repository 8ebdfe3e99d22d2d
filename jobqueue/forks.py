"""What is this process's own where a task forks without exec, as multiprocessing does.

*Descriptors.* What is started by exec inherits none that Python opened; a fork has all, and may outlive this process
with them: with the lock of a folder, a port on which nobody answers any more, connections whose clients would wait for
ever. It gets nothing in their place; to close a copy takes nothing from the parent.

*Signals.* asyncio has their numbers written into a socket, and a fork writes into the same one: what a task sends to a
process that it forked would stop the service, and what a terminal or systemd sends to all of them would count as often
as there are.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from signal import SIG_BLOCK, SIG_DFL, SIG_SETMASK, SIGINT, SIGTERM, Handlers
from typing import Protocol
from weakref import WeakSet


class Owner(Protocol):
    """Something with descriptors that no fork is to have."""

    def descriptors(self) -> Iterable[int]:
        """Those that are open now."""


_owners: WeakSet[Owner] = WeakSet()
_DEFAULTS: Mapping[int, Callable[..., object] | Handlers] = {SIGINT: signal.default_int_handler, SIGTERM: SIG_DFL}
_mask = threading.local()


def withhold_descriptors(owner: Owner) -> None:
    """From now on no fork has what this one has."""
    _owners.add(owner)


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


def _part_with_descriptors() -> None:
    # The numbers stay in use: whatever in this fork takes them for its own may close them, at any time.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [number for owner in _owners for number in owner.descriptors()]:
        with suppress(OSError):
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


os.register_at_fork(after_in_child=_part_with_descriptors)
