"""The guardian of a child server: started as a process of its own, it outlives nothing and lets nothing outlive it.

`python -I -S guardian.py COMMAND...` starts COMMAND, passes on what it prints, starts it again when it ends or says
that its storage has failed, and stops it when the process that started the guardian is gone, however it went: the
standard input of the guardian is a pipe that only the parent holds, so the kernel closes it even after a SIGKILL. The
other direction is covered too: on Linux the kernel terminates the child when its guardian dies.

What happens is reported on standard output, one JSON object a line: `{"event": "started", "pid": 7}`,
`{"event": "output", "line": "..."}`, `{"event": "ended", "code": 1, "again_in_seconds": 0.5}`.

Only the standard library, and little of it, so that it is up within some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

STOP_SECONDS = 15.0
"""How long the child may take to stop before it is killed. WiredTiger recovers from that, but stopping is cheaper."""

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that ran this long was healthy: its next restart begins with the first delay again."""

PANIC = b"WT_PANIC: WiredTiger library panic"
"""What a server prints whose storage can only be opened anew, as after a full disk. It would stay, and refuse all."""

_TICK_SECONDS = 1.0
_LINE_BYTES = 600
"""Longer lines are cut, so that one report, escaped, fits into PIPE_BUF (4,096) and is written whole or not at all."""


class Guardian:
    """Keeps one child running until `stop` is called or the parent is gone."""

    def __init__(self, command: Sequence[str], *, parent: int, report: Callable[..., None]) -> None:
        self._command = command
        self._parent = parent
        self._report = report
        self._stopping = False

    def stop(self) -> None:
        """Ask `run` to stop the child and return; takes effect within a second."""
        self._stopping = True

    def run(self) -> None:
        """Start the child, and again whenever it ends, until it is time to stop."""
        delay = FIRST_DELAY_SECONDS
        while not self._time_to_stop(0):
            started = time.monotonic()
            code = self._run_child()
            if code is None:
                return
            if time.monotonic() - started >= STEADY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._report(event="ended", code=code, again_in_seconds=delay)
            self._pause(delay)
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)

    def _run_child(self) -> int | None:
        """Run the child to its end. Returns its exit code, or None when it was stopped because it is time to."""
        try:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent(),
            )
        except OSError as error:
            self._report(event="output", line=str(error))
            return 127
        self._report(event="started", pid=child.pid)
        try:
            return self._watch(child)
        finally:
            _end(child)

    def _watch(self, child: subprocess.Popen[bytes]) -> int | None:
        assert child.stdout is not None
        pending = b""
        while True:
            if self._time_to_stop(_TICK_SECONDS, child.stdout.fileno()):
                return None
            if not select.select([child.stdout], [], [], 0)[0]:
                continue
            chunk = os.read(child.stdout.fileno(), 65_536)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines if chunk else [*lines, pending]:
                if line.strip():
                    self._report(event="output", line=line[:_LINE_BYTES].decode(errors="replace").rstrip())
                if PANIC in line:
                    child.kill()  # what it acknowledged is in its journal
            if not chunk:
                return child.wait()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._time_to_stop(min(left, _TICK_SECONDS)):
            pass

    def _time_to_stop(self, seconds: float, *others: int) -> bool:
        """Wait until the parent is gone, one of `others` is readable, or the time is over; say whether to stop.

        The parent's id is looked at as well: a process that the parent forked without exec holds the pipe open."""
        readable, _, _ = select.select([sys.stdin, *others], [], [], seconds)
        orphaned = os.getppid() != self._parent or (sys.stdin in readable and not os.read(sys.stdin.fileno(), 1))
        self._stopping = self._stopping or orphaned
        return self._stopping


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            # Nobody reads the pipe any more. What a server prints while it stops fits into its 64 KiB.
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _die_with_parent() -> Callable[[], None] | None:
    """Something for the child to call before exec: the kernel is to terminate it when this process dies.

    Linux ties this to the thread that forked. The guardian has one thread, which makes that the same as the process."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, int(signal.SIGTERM), 0, 0, 0)


def _report_to_parent(**event: object) -> None:
    """Write one event. Standard output does not block: a parent that is stopped must not stop the database of others,
    and one that is gone needs no report."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


def main() -> None:
    """Guard the command on the command line."""
    os.set_blocking(sys.stdout.fileno(), False)
    guardian = Guardian(sys.argv[1:], parent=os.getppid(), report=_report_to_parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: guardian.stop())
    guardian.run()


if __name__ == "__main__":
    main()
