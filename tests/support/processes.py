"""Real processes of the service for the end-to-end tests: started as a user starts them, ended by signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from databases import DatabaseProcess

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "cmd" / "jobqueue"
START_SECONDS = 60.0


class ServiceProcess:
    """One `jobqueue` process. Its JSON log is read as it comes; `events` keeps the latest lines."""

    def __init__(self, *arguments: str, env: Mapping[str, str] = {}, program: Sequence[str] = (str(PROGRAM),)) -> None:
        self._arguments = [*program, *arguments]
        self._env = _environment(env)
        self.events: deque[dict[str, Any]] = deque(maxlen=20_000)
        self.output: list[str] = []
        self._news = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it and wait until it says that it is up; what does not come up is not left behind."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            env=self._env,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._readers = [asyncio.create_task(self._read_log()), asyncio.create_task(self._read_output())]
        try:
            await self.is_up()
        except BaseException:
            await self.kill()
            raise

    async def is_up(self) -> None:
        """Wait until it says so."""
        started = await self.wait_for_event("started", seconds=START_SECONDS)
        self.url = str(started.get("url"))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def stop(self, *, seconds: float = 40.0) -> int:
        """SIGTERM, and wait for the end; returns the exit code."""
        self.send(signal.SIGTERM)
        return await self.wait(seconds=seconds)

    async def wait(self, *, seconds: float = 40.0) -> int:
        async with asyncio.timeout(seconds):
            code = await self._process.wait()
            await asyncio.gather(*self._readers)
        return code

    async def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def wait_for_event(self, event: str, *, seconds: float = 30.0, **fields: object) -> dict[str, Any]:
        """The first log line of this event with these fields, past or to come."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}.items()
            return next((line for line in self.events if wanted <= line.items()), None)

        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: found() or self._ended())
        except TimeoutError:
            raise AssertionError(f"no {event!r} within {seconds} s; the log ends:\n{self.tail()}") from None
        line = found()
        assert line is not None, f"ended ({self.returncode}) without {event!r}; the log ends:\n{self.tail()}"
        return line

    def tail(self, lines: int = 20) -> str:
        return "\n".join(json.dumps(line) for line in list(self.events)[-lines:])

    def _ended(self) -> bool:
        return bool(self._readers) and self._readers[0].done()

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        try:
            async for line in self._process.stderr:
                async with self._news:
                    self.events.append(_parse(line))
                    self._news.notify_all()
        finally:
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._tell()))

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.output.append(line.decode())


async def run_command(
    *arguments: str,
    env: Mapping[str, str],
    program: Sequence[str] = (str(PROGRAM),),
    cwd: Path = ROOT,
    seconds: float = 60.0,
) -> tuple[int, str, str]:
    """Run a command to its end; returns its exit code and what it wrote to standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *arguments,
        env=_environment(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await end_of(process, seconds=seconds)


async def end_of(process: asyncio.subprocess.Process, *, seconds: float) -> tuple[int, str, str]:
    """The exit code of a process, and what it wrote to both of its pipes. One that takes too long is killed."""
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def frozen(process: ServiceProcess | DatabaseProcess) -> AsyncIterator[None]:
    """SIGSTOP, and SIGCONT at the end. When the body begins, the process is still: it goes on for some milliseconds
    after the signal was sent where the processors are busy."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED)
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with no settings but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    return {**inherited, "JOBQUEUE_LOG_FORMAT": "json", **env}


def _parse(line: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"event": line.decode(errors="replace").rstrip()}
    return parsed if isinstance(parsed, dict) else {"event": str(parsed)}
