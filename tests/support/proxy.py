"""A TCP proxy in front of a database: passes on every message until it is told to be a bad network, or a bad disk.

It knows the frames of the MongoDB wire protocol, so that it can lose the answer to one command, or refuse a
command in the server's place, and leave everything else on the connection as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple, Self

import bson

WRITES = frozenset({"insert", "update", "delete", "findAndModify", "findandmodify"})
HEADER = struct.Struct("<iiii")
OP_MSG = 2013
BODY_AT = HEADER.size + 5
"""Where the command stands in an OP_MSG: after the header, four bytes of flags, and one that says "a body"."""


class Message(NamedTuple):
    """One frame."""

    raw: bytes

    @property
    def request_id(self) -> int:
        return int(HEADER.unpack_from(self.raw)[1])

    @property
    def response_to(self) -> int:
        return int(HEADER.unpack_from(self.raw)[2])

    @property
    def command(self) -> str:
        """The name of the command; empty for what is none."""
        if HEADER.unpack_from(self.raw)[3] != OP_MSG or self.raw[BODY_AT - 1] != 0:
            return ""
        name_at = BODY_AT + 5
        return self.raw[name_at : self.raw.index(b"\0", name_at)].decode()

    def says(self, name: str) -> bool:
        """Whether a field of this name is anywhere in it."""
        return name.encode() + b"\0" in self.raw

    @property
    def body(self) -> dict[str, Any]:
        length = struct.unpack_from("<i", self.raw, BODY_AT)[0]
        return bson.decode(self.raw[BODY_AT : BODY_AT + length])


class Lost(Enum):
    """Faults that need no more words."""

    ANSWER = "the command reaches the server, its answer is lost with the connection"
    COMMAND = "the command is lost with the connection"


class Refused(NamedTuple):
    """The command does not reach the server; this is the answer."""

    answer: Mapping[str, Any]


class Spoilt(NamedTuple):
    """The command is carried out; this is added to its answer."""

    addition: Mapping[str, Any]


Fault = Lost | Refused | Spoilt
Weather = Callable[[Message], Fault | None]
"""What happens to a command. None: nothing."""


def fine(message: Message) -> None:
    """Good weather."""


def refused(code: int, name: str) -> Refused:
    """What a server answers that does not carry out a command."""
    return Refused({"ok": 0.0, "code": code, "codeName": name, "errmsg": f"{name} (injected)"})


DISK_FULL = refused(14031, "OutOfDiskSpace")
READ_ONLY = refused(8, "UnknownError")
NOT_PRIMARY = refused(10107, "NotWritablePrimary")
NO_MAJORITY = Spoilt(
    {
        "writeConcernError": {
            "code": 64,
            "codeName": "WriteConcernTimeout",
            "errmsg": "waiting for replication timed out (injected)",
            "errInfo": {"wtimeout": True},
        }
    }
)


def answer_to(request_id: int, body: Mapping[str, Any]) -> bytes:
    """The frame of an answer."""
    content = b"\0\0\0\0\0" + bson.encode(body)
    return HEADER.pack(HEADER.size + len(content), 0, request_id, OP_MSG) + content


@dataclass(eq=False)
class Connection:
    """One client's connection, and the server's that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    faults: dict[int, Fault] = field(default_factory=dict)

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Listens on a port of its own. What it does to the traffic can be changed at any moment."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.weather: Weather = fine
        self.delay_seconds = 0.0
        self.refusing = False
        self.injected = 0
        """How many faults happened so far: a test that injected none shows nothing."""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._flowing.set()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def uri(self) -> str:
        # Direct, or the driver would hear of the server's own address and go around the proxy.
        return f"mongodb://127.0.0.1:{self.port}/?retryWrites=false&journal=true&directConnection=true"

    def cut(self) -> None:
        """Reset every connection."""
        self.injected += len(self._connections)
        for connection in list(self._connections):
            connection.abort()

    def half_close(self) -> None:
        """Say to every client that no answer will come any more, and go on taking what it sends."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError, RuntimeError):
                connection.client.write_eof()
                self.injected += 1

    def stall(self) -> None:
        """Let nothing pass in either direction, and close nothing: the silent partition."""
        self.injected += 1
        self._flowing.clear()

    def flow(self) -> None:
        """End a stall: what was held back arrives late."""
        self._flowing.set()

    def clear_up(self) -> None:
        """Be a good network again."""
        self.weather, self.delay_seconds, self.refusing = fine, 0.0, False
        self.flow()

    async def _connected(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            to_client.transport.abort()
            return
        connection = Connection(to_client, to_server)
        if self.refusing:
            connection.abort()
            return
        self._connections.add(connection)
        try:
            await self._pass_on_both_ways(connection, from_client, from_server)
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _pass_on_both_ways(
        self, connection: Connection, from_client: asyncio.StreamReader, from_server: asyncio.StreamReader
    ) -> None:
        ways = [
            asyncio.create_task(self._pass_on_commands(connection, from_client)),
            asyncio.create_task(self._pass_on_answers(connection, from_server)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on_commands(self, connection: Connection, source: asyncio.StreamReader) -> None:
        while message := await _read(source):
            await self._flowing.wait()
            fault = self.weather(message)
            if fault is not None:
                self.injected += 1
            if fault is Lost.COMMAND:
                return
            if isinstance(fault, Refused):
                await _write(connection.client, answer_to(message.request_id, fault.answer))
                continue
            if fault is not None:
                connection.faults[message.request_id] = fault
            await _write(connection.server, message.raw)

    async def _pass_on_answers(self, connection: Connection, source: asyncio.StreamReader) -> None:
        while message := await _read(source):
            await asyncio.sleep(self.delay_seconds)
            await self._flowing.wait()
            fault = connection.faults.pop(message.response_to, None)
            if fault is Lost.ANSWER:
                return
            raw = message.raw
            if isinstance(fault, Spoilt):
                raw = answer_to(message.response_to, {**message.body, **fault.addition})
            await _write(connection.client, raw)


async def _read(source: asyncio.StreamReader) -> Message | None:
    """The next frame; None at the end of the connection, however it ended."""
    try:
        header = await source.readexactly(HEADER.size)
        return Message(header + await source.readexactly(HEADER.unpack(header)[0] - HEADER.size))
    except (asyncio.IncompleteReadError, OSError):
        return None


async def _write(target: asyncio.StreamWriter, raw: bytes) -> None:
    with contextlib.suppress(OSError):
        target.write(raw)
        await target.drain()
