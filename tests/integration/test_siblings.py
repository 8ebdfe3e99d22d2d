"""What the processes behind one port tell each other: all of it, or that they do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jobqueue import siblings
from jobqueue.errors import ConfigurationError
from jobqueue.siblings import Place

LONG = b"x" * 1_000_000


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def places(stack: AsyncExitStack) -> list[Place]:
    folder = Path(stack.enter_context(TemporaryDirectory()))  # pytest's own folders may have too long names
    return [Place(number, (1, 2, 3), folder) for number in (1, 2, 3)]


async def test_each_is_asked_when_it_matters_and_whoever_is_away_is_named(
    places: list[Place], stack: AsyncExitStack
) -> None:
    counted = {1: b"1", 2: LONG}
    await places[0].tell(lambda: counted[1], stack)
    await places[1].tell(lambda: counted[2], stack)
    counted[1] = b"1 and more"

    assert await places[0].ask() == {1: b"1 and more", 2: LONG, 3: None}
    assert await places[1].ask() == await places[0].ask()


async def test_whoever_takes_the_place_of_a_killed_process_answers_in_its_stead(
    places: list[Place], stack: AsyncExitStack
) -> None:
    (places[0].folder / "3").touch()  # what the killed one left

    await places[2].tell(lambda: b"new", stack)

    assert (await places[0].ask())[3] == b"new"


async def test_one_that_hangs_or_stops_halfway_counts_as_away(
    places: list[Place], stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def stop_halfway(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"[1, 2")
        writer.close()

    monkeypatch.setattr(siblings, "ANSWER_SECONDS", 0.5)
    await places[0].tell(lambda: b"here", stack)
    for number, behave in ((2, hang), (3, stop_halfway)):
        server = await asyncio.start_unix_server(behave, places[0].folder / str(number))
        stack.callback(server.close)

    assert await places[0].ask() == {1: b"here", 2: None, 3: None}


async def test_a_folder_that_cannot_hold_sockets_is_named(stack: AsyncExitStack, tmp_path: Path) -> None:
    place = Place(1, (1,), tmp_path / ("long" * 40))

    with pytest.raises(ConfigurationError, match="set TMPDIR"):
        await place.tell(lambda: b"", stack)
