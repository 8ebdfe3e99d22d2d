"""The processes behind one port tell each other what they counted, whenever one of them is asked for metrics.

A scrape reaches any one of them, and has to show all. Each listens on a socket in a folder that only their user can
open, and whoever connects is sent its own metrics. Nothing is sent while nobody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from jobqueue.errors import ConfigurationError

ANSWER_SECONDS = 1.0
"""Whoever is silent for longer counts as away: a scrape must not wait for a process that hangs."""
END = b"\n"
"""What is cut off before it is not used."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which one of several processes this is, and where they meet."""

    number: int
    numbers: tuple[int, ...]
    folder: Path

    async def tell(self, snapshot: Callable[[], bytes], stack: AsyncExitStack) -> None:
        """From now on send what `snapshot` returns to each process that asks, until the stack unwinds."""

        async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                writer.write(snapshot() + END)
                await writer.drain()
            writer.close()

        path = self._socket(self.number)
        path.unlink(missing_ok=True)  # of the one whose place this process takes
        try:
            server = await asyncio.start_unix_server(send, path)
        except OSError as error:
            raise ConfigurationError(f"no socket can be made in {self.folder} ({error}); set TMPDIR") from None
        stack.callback(server.close)

    async def ask(self) -> Mapping[int, bytes | None]:
        """What each of them sends, by its number, this one included; None for one that does not answer."""
        return dict(zip(self.numbers, await asyncio.gather(*map(self._ask, self.numbers)), strict=True))

    async def _ask(self, number: int) -> bytes | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket(number))
                try:
                    sent = await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None
        return sent.removesuffix(END) if sent.endswith(END) else None

    def _socket(self, number: int) -> Path:
        return self.folder / str(number)
