"""Several processes of the service behind one port (JOBQUEUE_PROCESSES): what is theirs together.

    supervisor (this process) -- socket --> each process            the arrow: "when I go, you go"

The supervisor serves nothing itself. It has read and checked the settings, owns the embedded server if there is one,
keeps the port, and starts the processes: fresh interpreters, since no driver survives a fork. Each is an ordinary
process of the service with a worker id, slots and metrics of its own. They are in sessions of their own, so that
Ctrl-C in a terminal reaches the supervisor only, which passes it on; and they stop in order when it is gone, however
it went, since the kernel then closes the socket that it shares with each of them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from signal import SIGKILL, SIGTERM, Signals
from tempfile import TemporaryDirectory

import structlog

from jobqueue import __version__
from jobqueue.assignment import Assignment
from jobqueue.errors import ConfigurationError
from jobqueue.loop import on_stop_signals
from jobqueue.ports import DEFAULT_PORT, reserved, url_of
from jobqueue.settings import Settings
from jobqueue.supervisor import End, Supervisor

PROGRAM = ("-P", "-m", "jobqueue.child")
"""-P: what is importable is what the supervisor could import, not what happens to lie in the current folder."""
NO_SUCH_PROGRAM = 127
LAST_WORDS_SECONDS = 1.0
"""What a process said has arrived when it ends, and is read at once. The end of the socket may not come: a process that
a task forked holds it open."""

log = structlog.get_logger(__name__)


async def run_fleet(
    settings: Settings,
    *,
    http: bool,
    workers: bool,
    modules: Sequence[str],
    mongodb_uri: str,
    simulate: bool,
    on_ready: Callable[[str | None], None],
) -> int:
    """Run `settings.processes` processes until a signal asks to stop; returns the exit code. `on_ready` is called
    when all are up, with their URL if they listen.

    Raises `ConfigurationError` before anything is started, `ProcessFailed` when they could not be kept running."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        settings, url = stack.enter_context(_port(settings, http=http))
        numbers = tuple(range(1, settings.processes + 1))

        def start(number: int) -> ChildProcess:
            return ChildProcess(
                Assignment.of(
                    settings,
                    mongodb_uri=mongodb_uri,
                    http=http,
                    workers=workers,
                    modules=modules,
                    simulate=simulate,
                    folder=folder,
                    numbers=numbers,
                    number=number,
                )
            )

        def ready() -> None:
            log.info("processes started", url=url, processes=len(numbers), version=__version__)
            on_ready(url)

        supervisor = Supervisor(start, numbers=numbers)
        stack.callback(supervisor.kill)
        on_stop_signals(supervisor.stop, at_once=stack.close)
        await supervisor.run(ready)
    return 0


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for the sockets through which the processes tell each other their metrics."""
    try:
        folder = TemporaryDirectory(prefix="jobqueue-", ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigurationError(f"there is no folder for temporary files ({error.strerror}); set TMPDIR") from None
    with folder as name:
        yield name


@contextmanager
def _port(settings: Settings, *, http: bool) -> Iterator[tuple[Settings, str | None]]:
    """The settings with the port that is kept for all processes, and its URL; no port where none is asked for."""
    if not http and settings.port is None:
        yield settings, None
        return
    port = DEFAULT_PORT if settings.port is None else settings.port
    with reserved(settings.host, port) as (address, number):
        yield settings.model_copy(update={"port": number}), url_of(address, number)


class ChildProcess:
    """One process, from the moment when it is made."""

    def __init__(self, assignment: Assignment) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._wanted: Signals | None = None
        self._reason: str | None = None
        self._up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(assignment))

    async def up(self) -> bool:
        """Wait until it does its work; False when it ended before that."""
        return await asyncio.shield(self._up)

    async def ended(self) -> End:
        """Wait for its end."""
        return await asyncio.shield(self._life)

    def stop(self) -> None:
        """Ask it to stop in order."""
        self._send(SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._send(SIGKILL)

    def _send(self, number: Signals) -> None:
        self._wanted = number
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _live(self, assignment: Assignment) -> End:
        ours, theirs = socket.socketpair()
        try:
            self._process = await _spawn(theirs)
        except OSError as error:
            ours.close()
            self._up.set_result(False)
            return End(NO_SUCH_PROGRAM, str(error))
        if self._wanted is not None:
            self._send(self._wanted)
        reader, writer = await asyncio.open_connection(sock=ours)
        with closing(writer):
            writer.write(assignment.model_dump_json().encode() + b"\n")
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen(reader))
                code = await self._process.wait()
                await asyncio.wait({listening}, timeout=LAST_WORDS_SECONDS)
                listening.cancel()
        if not self._up.done():
            self._up.set_result(False)
        return End(code, self._reason)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Read what it reports, to its end: that it is up, or why it is not."""
        with suppress(ConnectionError):
            async for line in reader:
                report = json.loads(line)
                if report.get("up") and not self._up.done():
                    self._up.set_result(True)
                self._reason = report.get("failed", self._reason)


async def _spawn(theirs: socket.socket) -> asyncio.subprocess.Process:
    with theirs:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *PROGRAM, str(theirs.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
