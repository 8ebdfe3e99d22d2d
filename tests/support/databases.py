"""A database server of the tests' own: the embedded server, started without the product, to be killed at will."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 60.0


class DatabaseProcess:
    """One server with its data in `folder`; after a kill it can be started again, on the same port, which is kept."""

    def __init__(self, folder: Path, *, build: str | None = None) -> None:
        self._folder = folder
        self._build = build

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?retryWrites=false&journal=true"

    async def __aenter__(self) -> Self:
        with ExitStack() as stack:
            self.port = stack.enter_context(kept_port())
            await self.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            await self.kill()

    async def start(self) -> None:
        """Start it and wait until it takes connections; what does not come up is not left behind."""
        command = server_command(self._folder, self.port, build=self._build)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await self._come_up()
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _come_up(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while not await self._takes_connections():
                assert self._process.returncode is None, f"the database ended with {self._process.returncode}"
                await asyncio.sleep(0.05)

    async def _takes_connections(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


def server_command(folder: Path, port: int, *, build: str | None = None) -> list[str]:
    """What to run for a server with its data in `folder`, which is made. The build is `python` unless set."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.toml").touch()
    options = ["--config", str(folder / "empty.toml"), "--host", "127.0.0.1", "--port", str(port)]
    options += ["--storage-path", str(folder / "data"), "--cache-size", "256M", "--log-level", "WARNING"]
    if (build or os.environ.get("JOBQUEUE_TEST_EMBEDDED_SERVER", "python")) == "rust":
        return ["secantusd-rs", *options, "--sync-on-commit"]
    return [sys.executable, "-P", "-m", "secantus", *options]


def missing_server() -> str | None:
    """Why no database of the tests' own can be started here; None when it can."""
    build = os.environ.get("JOBQUEUE_TEST_EMBEDDED_SERVER", "python")
    if build == "rust":
        return None if shutil.which("secantusd-rs") else "secantusd-rs is not on the PATH"
    return None if importlib.util.find_spec("secantus") else "the extra `embedded` is not installed"


@contextmanager
def kept_port() -> Iterator[int]:
    """A port for a server that the test starts, now and again, or for nobody.

    A number that was free a moment ago may be anybody's when the server listens at last: each process of the tests that
    asks for any port is given one of some thousands. While this socket is bound, and only that, nobody is given the
    number by chance; a server that names it can have it, since both say SO_REUSEADDR."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port: int = kept.getsockname()[1]
        yield port
