"""What the tests of all folders share: one embedded server for the whole run, a database of its own for each test."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import mongomock.collection
import pytest
import structlog
from databases import START_SECONDS, DatabaseProcess, kept_port, missing_server, server_command
from pymongo import MongoClient

PLAIN = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

LONG = ("simulation", "e2e", "integration", "contract")
"""The folders whose files take long, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that not one process is left with it at the end."""
    items.sort(key=_is_due)


def _is_due(item: pytest.Item) -> int:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return LONG.index(folder) if folder in LONG else len(LONG)


@pytest.fixture(autouse=True)
def _plain_tracebacks() -> None:
    """As the product writes them. Where nobody configures structlog it draws each with all locals, by rich, which takes
    a second of CPU; a test that meets errors in many requests would take minutes to fail."""
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], PLAIN])


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the embedded server of this run listens (JOBQUEUE_TEST_EMBEDDED_SERVER=rust takes the other build)."""
    if reason := missing_server():
        pytest.skip(reason)
    with (
        kept_port() as port,
        subprocess.Popen(
            server_command(tmp_path_factory.mktemp("server"), port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server,
    ):
        try:
            _wait_for_connections(server, port)
            yield f"mongodb://127.0.0.1:{port}/?retryWrites=false&journal=true"
        finally:
            server.terminate()


@pytest.fixture
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment in which the tests run."""
    for name in [name for name in os.environ if name.startswith("JOBQUEUE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[DatabaseProcess]:
    """A server of the test's own, to be killed or frozen at will."""
    if reason := missing_server():
        pytest.skip(reason)
    async with DatabaseProcess(tmp_path / "database") as server:
        yield server


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What only the garbage collector would find stays to be seen."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def port() -> Iterator[int]:
    """One for a server that the test starts, or for nobody."""
    with kept_port() as port:
        yield port


@pytest.fixture
def database_name(server_uri: str) -> Iterator[str]:
    """A database of the embedded server that nobody else uses, gone after the test."""
    name = f"test-{uuid4().hex}"
    yield name
    with MongoClient[dict[str, object]](server_uri) as client:
        client.drop_database(name)


def _wait_for_connections(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the database server ended with {server.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the database server takes no connections within {START_SECONDS} s")


@pytest.fixture
def mock_takes_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMongo passes `sort` to bulk updates since 4.11, which mongomock 4.3 does not know."""
    add_update: Any = mongomock.collection.BulkOperationBuilder.add_update

    def without_sort(self: Any, *args: Any, sort: Any = None, **options: Any) -> Any:
        return add_update(self, *args, **options)

    monkeypatch.setattr(mongomock.collection.BulkOperationBuilder, "add_update", without_sort)
