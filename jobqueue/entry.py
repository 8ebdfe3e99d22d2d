"""The way into the program, for `cmd/jobqueue` and for the `jobqueue` that pip installs.

To load the rest takes most of a second. Ctrl-C would end that with a traceback, so this comes first and loads nothing.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the program with the arguments of the process; returns the exit code."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if on_interrupt is signal.default_int_handler:  # not where it is ignored, as for what a script starts with &
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from jobqueue.cli import main as run

    signal.signal(signal.SIGINT, on_interrupt)
    return run(sys.argv[1:])
