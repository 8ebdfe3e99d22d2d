"""One of several processes: `python -m jobqueue.child FD`, started by `jobqueue.fleet` and by nobody else.

FD is its end of the socket that it shares with its supervisor. First comes its assignment; back go one line when it is
up, or one that says why it is not. After that nothing comes any more, and when the socket is closed the supervisor is
gone: that counts as a signal to stop, in order for the first and at once for the second. A process that cannot hear
signals, because a task blocks its event loop, ends when the time for an orderly stop is over.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from jobqueue import logs
from jobqueue.app import FLUSH_SECONDS
from jobqueue.assignment import Assignment
from jobqueue.builtin import simulation
from jobqueue.errors import JobQueueError
from jobqueue.loading import load
from jobqueue.loop import EXIT_AT_ONCE, run_to_the_end
from jobqueue.process import run
from jobqueue.siblings import Place

CLOSING_SECONDS = 10.0
"""For closing sockets and connections, once all outcomes are written."""


class Supervised:
    """The way to the supervisor."""

    def __init__(self, channel: socket.socket) -> None:
        """Raises `ConnectionError` when the supervisor is gone before it said what to do."""
        channel.set_inheritable(False)  # or what a task starts holds it open when this process is gone
        self._channel = channel
        line = channel.makefile("rb").readline()
        if not line:
            raise ConnectionError("the supervisor is gone")
        self.assignment = Assignment.model_validate_json(line)

    def follow(self) -> None:
        """From now on stop when the supervisor is gone."""
        settings = self.assignment.settings
        patience = settings.shutdown_grace_seconds + FLUSH_SECONDS + CLOSING_SECONDS
        threading.Thread(target=self._stop_when_alone, args=(patience,), name="supervisor", daemon=True).start()

    def report(self, **event: object) -> None:
        """Tell it, if it is there."""
        with suppress(OSError):
            self._channel.sendall(json.dumps(event).encode() + b"\n")

    def _stop_when_alone(self, patience: float) -> None:
        with suppress(OSError):
            self._channel.recv(1)
        rmtree(self.assignment.folder, ignore_errors=True)  # the supervisor's, which could not
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        os._exit(EXIT_AT_ONCE)


def main() -> int:
    """Do what the supervisor assigns; returns the exit code."""
    try:
        supervised = Supervised(socket.socket(fileno=int(sys.argv[1])))
    except ConnectionError:
        return EXIT_AT_ONCE
    supervised.follow()
    try:
        return _work(supervised)
    except JobQueueError as error:
        supervised.report(failed=str(error))
        return 1


def _work(supervised: Supervised) -> int:
    assignment = supervised.assignment
    settings = assignment.settings
    logs.configure(settings.log_level, settings.log_format, process=assignment.number)
    tasks = load(assignment.modules)
    return run_to_the_end(
        run(
            settings,
            http=assignment.http,
            workers=assignment.workers,
            registry=simulation(tasks) if assignment.simulate else tasks,
            mongodb_uri=assignment.mongodb_uri,
            place=Place(assignment.number, assignment.numbers, Path(assignment.folder)),
            on_ready=lambda _: supervised.report(up=True),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
