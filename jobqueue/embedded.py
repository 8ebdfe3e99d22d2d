"""The embedded MongoDB-wire server: a child process, so that the service can be tried where no MongoDB is.

Guarantees: one server per data folder; it is gone within seconds of its parent, however that went; it is started again
when it crashes, on the same port; what it acknowledged is found again after any of that. It listens on the loopback
address only. No driver is needed here: a server is ready when it says that it listens.

    parent (serve) -- pipe --> guardian -- parent-death signal --> server        each arrow: "when I go, you go"
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import shutil
import socket
import sys
from asyncio.subprocess import PIPE
from asyncio.subprocess import Process as Child
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import structlog

from jobqueue import guardian
from jobqueue.data_dir import Build, DataDir, Process, ServerRecord
from jobqueue.errors import ConfigurationError

log = structlog.get_logger()

ADDRESS = "127.0.0.1"
FIRST_PORT = 27027
PORTS_TO_TRY = 100
RUST_PROGRAM = "secantusd-rs"
PYTHON_MODULE = "secantus"

READY_SECONDS = 120.0
"""A start takes a third of a second, but one after a power cut reads the whole journal first."""

_LISTENS = "listening on"
_LAST_LINES = 5
_SMALL_TALK = re.compile(r"^ |^Traceback| INFO ")
"""Lines that tell its users nothing: the stack of a Python traceback, and which files it read."""

_AGAIN_SECONDS = 1.0


class EmbeddedServer:
    """The server of one data folder, from `start` to `stop`. An asynchronous context manager does both."""

    def __init__(
        self,
        data_dir: Path,
        *,
        build: Literal["auto", "python", "rust"] = "auto",
        first_port: int = FIRST_PORT,
    ) -> None:
        self._folder = DataDir(data_dir)
        self._wanted_build = build
        self._first_port = first_port
        self._port = 0
        self._unnoted: ServerRecord | None = None
        self._stop = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def uri(self) -> str:
        """Where drivers and mongosh find the server, once it is started."""
        return _uri(self._port)

    async def start(self) -> None:
        """Return when the server listens. Raises `ConfigurationError`, with nothing left running or locked."""
        await self._folder.lock()
        try:
            build = choose_build(self._folder, self._wanted_build)
            await self._folder.end_leftovers()
            await self._start_on_a_free_port(build)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server, then let go of the folder. May be called at any time, and again."""
        try:
            await self._dismiss()
        finally:
            self._folder.unlock()

    async def _start_on_a_free_port(self, build: Build) -> None:
        for port in self._ports():
            if not _is_free(port):
                continue
            if await self._listens(_command(build, self._folder, port), port):
                return
            if _is_free(port):  # so that was not the reason
                raise ConfigurationError(self._obituary(build))
        last = self._first_port + PORTS_TO_TRY - 1
        raise ConfigurationError(
            f"no port from {self._first_port} to {last} is free for the embedded server: stop what uses them, or set"
            " JOBQUEUE_MONGODB_URI"
        )

    def _ports(self) -> list[int]:
        kept = self._folder.read()
        return [*([kept.port] if kept else []), *range(self._first_port, self._first_port + PORTS_TO_TRY)]

    async def _listens(self, command: Sequence[str], port: int) -> bool:
        """Start the server and wait until it listens, or has ended, or took too long."""
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._port = port
        self._keeper = asyncio.create_task(self._keep(command, ready))
        with contextlib.suppress(TimeoutError):
            if await asyncio.wait_for(ready, READY_SECONDS):
                return True
        await self._dismiss()
        return False

    async def _dismiss(self) -> None:
        """Stop the server, by its guardian where that one lives."""
        if self._keeper is not None:
            self._stop.set()
            await self._keeper
            await self._end_leftovers()
            self._keeper = None
            self._stop.clear()

    async def _keep(self, command: Sequence[str], ready: asyncio.Future[bool]) -> None:
        """Keep a guardian on its feet until it is time to stop; the guardian does the same for the server."""
        while True:
            reason = await self._run_guardian_or_say_why(command, ready)
            if not ready.done():
                ready.set_result(False)
            if self._stop.is_set():
                return
            log.error(
                "guardian of the embedded server ended",
                port=self._port,
                reason=reason,
                again_in_seconds=_AGAIN_SECONDS,
            )
            await self._end_leftovers()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _AGAIN_SECONDS)
                return

    async def _run_guardian_or_say_why(self, command: Sequence[str], ready: asyncio.Future[bool]) -> str | None:
        try:
            await self._run_guardian(command, ready)
        except OSError as error:  # no process, memory or file to be had now, which may be over at the next attempt
            self._last_lines.append(str(error))
            return str(error)
        return None

    async def _end_leftovers(self) -> None:
        try:
            await self._folder.end_leftovers()
        except OSError as error:
            log.warning("what is left of the embedded server cannot be ended", port=self._port, reason=str(error))

    async def _run_guardian(self, command: Sequence[str], ready: asyncio.Future[bool]) -> None:
        """Run one guardian until it ends or it is time to stop."""
        # -I -S: it needs nothing that is installed, and is up at once. The session is its own, so that Ctrl-C in a
        # terminal does not reach the database before the service has drained.
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", guardian.__file__, *command),
            stdin=PIPE,
            stdout=PIPE,
            cwd=self._folder.path,
            start_new_session=True,
        )
        assert child.stdin is not None
        stop = asyncio.create_task(self._stop.wait())
        noting = asyncio.create_task(self._note_again_and_again())
        following = asyncio.create_task(self._follow(child, ready))
        try:
            await asyncio.wait({stop, following}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            child.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                child.terminate()  # since what a task forked holds that pipe open
            stop.cancel()
            noting.cancel()
        await _wait_or_kill(child)
        await following

    async def _follow(self, child: Child, ready: asyncio.Future[bool]) -> None:
        """Read what the guardian reports, to its end."""
        assert child.stdout is not None
        async for report in child.stdout:
            try:
                event = json.loads(report)
            except ValueError:
                continue  # cut short, because this process was stopped and the pipe was full
            match event["event"]:
                case "started":
                    self._record(child.pid, event["pid"], ready=ready)
                case "output":
                    self._listen_to(event["line"], ready)
                case "ended" if ready.done():
                    log.warning(
                        "embedded server ended",
                        port=self._port,
                        exit_code=event["code"],
                        again_in_seconds=event["again_in_seconds"],
                        last_lines=list(self._last_lines),
                    )
                case "ended":
                    ready.set_result(False)

    def _record(self, *pids: int, ready: asyncio.Future[bool]) -> None:
        """Note the processes for others. At the first start that has to succeed; later the server matters more."""
        try:
            processes = [Process.of(pid) for pid in pids]
            self._unnoted = ServerRecord(self._port, tuple(process for process in processes if process))
            self._note()
        except (ConfigurationError, OSError) as error:
            if ready.done():
                log.error("processes of the embedded server cannot be noted", port=self._port, reason=str(error))
            else:
                ready.set_exception(ConfigurationError(str(error)))

    def _note(self) -> None:
        if self._unnoted is not None:
            self._folder.write(self._unnoted)
            self._unnoted = None

    async def _note_again_and_again(self) -> None:
        """What could not be noted: until then nobody can join."""
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(ConfigurationError):
                self._note()

    def _listen_to(self, line: str, ready: asyncio.Future[bool]) -> None:
        if _LISTENS in line:
            if ready.done():
                log.info("embedded server listens again", port=self._port)
            else:
                ready.set_result(True)
        elif not _SMALL_TALK.search(line):
            self._last_lines.append(line)
            if ready.done():  # until then, what it says belongs into the message that it does not start
                log.warning("embedded server says", line=line)

    def _obituary(self, build: Build) -> str:
        last_lines = "\n".join(f"  {line}" for line in self._last_lines) or "  (nothing)"
        return f"the embedded server ({build}, data in {self._folder.path}) does not start; it said:\n{last_lines}"


def choose_build(folder: DataDir, wanted: Literal["auto", "python", "rust"]) -> Build:
    """The build to use: the one whose data is in the folder; for a new folder the wanted one, rust when it is there.

    Raises `ConfigurationError` when it is not installed, or another than the wanted one made the folder."""
    made_by = folder.made_by()
    if made_by and wanted not in ("auto", made_by):
        raise ConfigurationError(
            f"the data in {folder.path} was made by the {made_by} build of the embedded server and stays with it:"
            f" set JOBQUEUE_EMBEDDED_SERVER to auto, or JOBQUEUE_DATA_DIR to another folder"
        )
    if wanted == "auto":
        build: Build = made_by or ("rust" if shutil.which(RUST_PROGRAM) else "python")
    else:
        build = wanted
    _check_installed(build)
    return build


def join(data_dir: Path) -> str:
    """The URI of the server that another process runs for this folder. Raises `ConfigurationError` if none does."""
    folder = DataDir(data_dir)
    record = folder.read()
    if record is None or not record.is_running():
        raise ConfigurationError(
            f"no MongoDB: set JOBQUEUE_MONGODB_URI, or first start `jobqueue serve`, whose embedded server"
            f" would be found in JOBQUEUE_DATA_DIR ({folder.path})"
        )
    return _uri(record.port)


def _check_installed(build: Build) -> None:
    if build == "rust" and shutil.which(RUST_PROGRAM) is None:
        raise ConfigurationError(
            f"the rust build of the embedded server ({RUST_PROGRAM}) is not on the PATH:"
            " install it with `cargo install secantus-mdb`, or set JOBQUEUE_MONGODB_URI"
        )
    # Looked for, not imported: it stays out of this process.
    if build == "python" and importlib.util.find_spec(PYTHON_MODULE) is None:
        raise ConfigurationError(
            "no MongoDB: set JOBQUEUE_MONGODB_URI, or install the embedded server with"
            " `pip install 'jobqueue[embedded]'`"
        )


def _command(build: Build, folder: DataDir, port: int) -> list[str]:
    options = [
        *("--config", str(folder.config_file)),
        *("--host", ADDRESS),
        *("--port", str(port)),
        *("--storage-path", str(folder.storage(build))),
        *("--cache-size", "256M"),
        *("--log-level", "INFO"),  # the python build says at this level only that it listens
    ]
    if build == "rust":
        # Its journal stays in the memory of the process until a commit asks for more, and journal=true does not ask.
        return [RUST_PROGRAM, *options, "--sync-on-commit"]
    return [sys.executable, "-P", "-m", PYTHON_MODULE, *options]


def _uri(port: int) -> str:
    # Each retryable write would be remembered for half an hour and searched by every later one; without journal=true
    # the python build acknowledges what a crash loses.
    return f"mongodb://{ADDRESS}:{port}/?retryWrites=false&journal=true"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


async def _wait_or_kill(child: Child) -> None:
    try:
        await asyncio.wait_for(child.wait(), guardian.STOP_SECONDS + 5.0)
    except TimeoutError:
        log.warning("guardian of the embedded server did not stop")
        child.kill()
        await child.wait()
