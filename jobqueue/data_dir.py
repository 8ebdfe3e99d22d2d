"""The folder of an embedded server: whose it is, what runs in it, and on which port.

    lock                held by the process that runs the server; the kernel lets go of it however that process ends
    server.json         port and processes of the last start; the port is taken again where possible
    python/ or rust/    the data. The folder's name marks the build that made it: neither reads the other's files

A process is known by its id *and* by when it was started, so that a reused id is never taken for ours; and what
stands in `server.json` counts only in the folder that it was written for, so that in a copy nobody joins, or stops, the
server of the original.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jobqueue.errors import ConfigurationError
from jobqueue.forks import withhold_descriptors
from jobqueue.guardian import STOP_SECONDS

Build = Literal["python", "rust"]
BUILDS: tuple[Build, ...] = ("python", "rust")

_PATIENCE_SECONDS = STOP_SECONDS + 5.0
"""A guardian that was left behind stops its server first, and may take `STOP_SECONDS` for that."""

_LOCK_SECONDS = 2.0
"""The kernel needs a moment to take down a process that was killed; until then the lock is not free."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can be recognised later."""

    pid: int
    identity: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this id now; None when there is none."""
        identity = identify(pid)
        return None if identity is None else cls(pid, identity)

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return identify(self.pid) == self.identity

    async def end(self) -> None:
        """Terminate it, kill it where that does not help, and return when it is gone."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_alive():
                return
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)
            give_up_at = time.monotonic() + _PATIENCE_SECONDS
            while self.is_alive() and time.monotonic() < give_up_at:  # noqa: ASYNC110 - no event tells of a stranger's end
                await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The last known port of a folder's server, and its processes: the guardian, then the server."""

    port: int
    processes: tuple[Process, ...] = ()

    def is_running(self) -> bool:
        """Whether the server itself is alive."""
        return len(self.processes) == 2 and self.processes[-1].is_alive()


class DataDir:
    """One folder. What the file system refuses comes out as `ConfigurationError`."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None
        withhold_descriptors(self)

    @property
    def config_file(self) -> Path:
        """An empty configuration: without a file of ours the server takes whichever lies in a folder above."""
        return self.path / "empty.toml"

    def storage(self, build: Build) -> Path:
        """Where this build keeps its data."""
        return self.path / build

    def made_by(self) -> Build | None:
        """The build whose data is here; None for a new folder."""
        used = (build for build in BUILDS if next(self.storage(build).glob("*"), None))
        return next(used, None)

    async def lock(self) -> None:
        """Make the folder, and keep every other process from running a server in it until `unlock`."""
        with self._refusals():
            self.path.mkdir(parents=True, exist_ok=True)
            self.config_file.write_bytes(b"")
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            await self._acquire(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._lock = descriptor

    async def _acquire(self, descriptor: int) -> None:
        give_up_at = time.monotonic() + _LOCK_SECONDS
        while True:
            with suppress(BlockingIOError):
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.monotonic() > give_up_at:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace")
                raise ConfigurationError(
                    f"the data folder {self.path} is in use by process {holder}: stop that one, set JOBQUEUE_DATA_DIR"
                    " to another folder, or start `jobqueue api` or `jobqueue worker`, which join it"
                )
            await asyncio.sleep(0.05)

    def unlock(self) -> None:
        """Let others use the folder. Does nothing when it is not locked."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def descriptors(self) -> Iterable[int]:
        """That of the lock, while this process holds it."""
        return () if self._lock is None else (self._lock,)

    def read(self) -> ServerRecord | None:
        """What was last written; None for a new folder, for a copy, or when it cannot be understood."""
        try:
            kept = json.loads((self.path / "server.json").read_bytes())
            if kept["folder"] != self._identity():
                return None
            return ServerRecord(int(kept["port"]), tuple(Process(**process) for process in kept["processes"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: ServerRecord) -> None:
        """Replace what is kept, all of it or nothing."""
        draft = self.path / "server.json.new"
        with self._refusals():
            draft.write_text(json.dumps({"folder": self._identity(), **asdict(record)}) + "\n")
            draft.replace(self.path / "server.json")

    def _identity(self) -> list[int]:
        """What a folder keeps when it is moved, and what a copy does not have."""
        status = self.path.stat()
        return [status.st_dev, status.st_ino]

    async def end_leftovers(self) -> None:
        """Stop what an earlier owner of the lock, which died, left running here."""
        record = self.read()
        for process in record.processes if record else ():
            await process.end()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"the data folder {self.path} cannot be used ({error.strerror}):"
                " set JOBQUEUE_DATA_DIR to a folder that can be written"
            ) from None


def identify(pid: int) -> str | None:
    """When the process with this id was started; None when there is none, or only a zombie of it.

    What it was started as is left out: between fork and the end of exec that changes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return _identify_by_ps(pid)
    try:
        # The name of the program, in parentheses, may hold anything. After it: the state first, the start as 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{fields[19]} ticks after boot {boot.strip()}"


def _identify_by_ps(pid: int) -> str | None:
    """The way of systems without /proc, such as macOS."""
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None
