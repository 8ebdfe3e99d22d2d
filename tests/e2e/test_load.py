"""More clients than are good for a process: idle ones, slow ones, and more than it has file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from observers import WITNESSED, Client, eventually
from processes import ServiceProcess

Settings = Callable[..., dict[str, str]]
IDLE = 1_500
SLOW = 200
SPARE = 100
"""File descriptors that this process needs for itself."""
HEAD = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
async def service(settings_for: Settings) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as service:
        yield service


@asynccontextmanager
async def connections(url: str, count: int, *, sent: bytes = b"") -> AsyncIterator[list[asyncio.StreamWriter]]:
    """So many connections, on which this was sent."""
    address, writers = urlsplit(url), list[asyncio.StreamWriter]()
    try:
        for _ in range(count):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(sent)
            writers.append(writer)
        yield writers
    finally:
        for writer in writers:
            writer.transport.abort()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_mebibytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def works(client: Client) -> bool:
    status, job = await client.post("/jobs", {"type": "work", "payload": {}})
    if status != 201:
        return False
    _, done = await client.get(f"/jobs/{job['id']}?wait=20")
    return bool(done["status"] == "completed")


async def test_idle_and_slow_connections_cost_little_and_hinder_nobody(
    http: aiohttp.ClientSession, service: ServiceProcess
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    idle = min(IDLE, soft - SLOW - SPARE)
    client = Client(http, service.url)
    assert await works(client)
    before, memory = descriptors(service.pid), resident_mebibytes(service.pid)

    async with connections(service.url, idle), connections(service.url, SLOW, sent=HEAD) as slow:
        await eventually(lambda: _has(service.pid, before + idle + SLOW), seconds=30, what="all are accepted")
        for writer in slow:
            writer.write(b'{"type"')
        assert all(await asyncio.gather(*(works(client) for _ in range(20))))
        grown = resident_mebibytes(service.pid) - memory

    # A connection takes some tens of KiB; this is to notice one that takes a megabyte.
    assert grown < 0.2 * (idle + SLOW)
    await eventually(lambda: _has_at_most(service.pid, before + SPARE), seconds=30, what="they are gone")


async def test_a_process_without_free_file_descriptors_recovers_when_there_are_some_again(
    http: aiohttp.ClientSession, service: ServiceProcess
) -> None:
    client = Client(http, service.url)
    assert await works(client)
    limit = descriptors(service.pid) + 50
    _, hard = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, hard))

    async with connections(service.url, 200):
        await eventually(lambda: _has(service.pid, limit), seconds=30, what="none is free")
        await asyncio.sleep(3)  # nothing to wait for: it cannot even answer
        assert service.returncode is None
    await eventually(lambda: _works_again(client), seconds=60, what="it works again")

    assert len([event for event in service.events if event.get("level") == "error"]) < 50


async def _has(pid: int, count: int) -> bool:
    return descriptors(pid) >= count


async def _has_at_most(pid: int, count: int) -> bool:
    return descriptors(pid) <= count


async def _works_again(client: Client) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        return await works(client)
    return False
