"""The embedded server: found again, started again, never left behind, never two in one folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from observers import eventually
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from jobqueue import data_dir
from jobqueue.data_dir import BUILDS, Build, DataDir, Process, ServerRecord
from jobqueue.embedded import RUST_PROGRAM, EmbeddedServer, join
from jobqueue.errors import ConfigurationError

PARENT = """
import asyncio, os, sys, time
from pathlib import Path
from jobqueue import logs
from jobqueue.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(Path(sys.argv[1]), build="python", first_port=int(sys.argv[2])) as server:
        is_child = sys.argv[3] == "forks" and os.fork() == 0
        os.write(1, f"{os.getpid()}\\n".encode())
        if is_child:
            time.sleep(600)
        await asyncio.Event().wait()

logs.configure("ERROR")
asyncio.run(main())
"""


@pytest.fixture(params=BUILDS)
def build(request: pytest.FixtureRequest) -> Build:
    chosen: Build = request.param
    if chosen == "rust" and shutil.which(RUST_PROGRAM) is None:
        pytest.skip(f"{RUST_PROGRAM} is not on the PATH")
    return chosen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "with a space" / "data"


@pytest.fixture
def start_parent(folder: Path, port: int) -> Iterator[Callable[..., int]]:
    """Starts a process that runs a server in the folder; returns its id. What is left of it is killed at the end."""
    with contextlib.ExitStack() as stack:

        def start(how: str = "plainly") -> int:
            command = [sys.executable, "-c", PARENT, str(folder), str(port), how]
            parent = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(parent.kill)
            assert parent.stdout is not None
            for _ in range(2 if how == "forks" else 1):
                stack.callback(_kill, int(parent.stdout.readline()))
            return parent.pid

        yield start


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def processes_in(folder: Path) -> tuple[Process, ...]:
    """Guardian and server."""
    record = DataDir(folder).read()
    assert record is not None
    assert len(record.processes) == 2
    return record.processes


async def gone(processes: tuple[Process, ...]) -> None:
    async def none_lives() -> bool:
        return not any(process.is_alive() for process in processes)

    await eventually(none_lives, seconds=30, what="guardian and server are gone")


async def stands_still(process: Process) -> None:
    """Wait until a signal to stop has stopped it. It is no child of this process, so it cannot be waited for."""

    async def is_stopped() -> bool:
        return _state(process.pid) == "T"

    await eventually(is_stopped, seconds=30, what="the guardian stands still")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def answers(uri: str) -> None:
    async def pings() -> bool:
        return await asyncio.to_thread(_pings, uri)

    await eventually(pings, seconds=60, what=f"{uri} answers")


async def joined(folder: Path) -> bool:
    try:
        join(folder)
    except ConfigurationError:
        return False
    return True


def _pings(uri: str) -> bool:
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=500) as client:
        try:
            return bool(client.admin.command("ping")["ok"])
        except PyMongoError:
            return False


def insert(uri: str, *ids: str) -> None:
    with MongoClient[dict[str, Any]](uri) as client:
        client.test.things.insert_many([{"_id": name} for name in ids])


def ids_at(uri: str) -> set[str]:
    with MongoClient[dict[str, Any]](uri) as client:
        return {document["_id"] for document in client.test.things.find()}


def insert_until_it_dies(uri: str, server: Process, acknowledged: list[str]) -> None:
    # Without repeats by the driver, which would go to the server that is started next and never end.
    with MongoClient[dict[str, Any]](uri, retryWrites=False) as client, contextlib.suppress(PyMongoError):
        while server.is_alive():
            ids = [f"{len(acknowledged) + number}" for number in range(5)]
            client.test.things.insert_many([{"_id": name} for name in ids])
            acknowledged += ids


async def test_a_restart_finds_the_data_and_takes_the_same_port(build: Build, folder: Path, port: int) -> None:
    async with EmbeddedServer(folder, build=build, first_port=port) as server:
        await asyncio.to_thread(insert, server.uri, "kept")
        processes, uri = processes_in(folder), server.uri

    assert not any(process.is_alive() for process in processes)
    # The port is the one that the folder remembers, wherever the search would begin now.
    async with EmbeddedServer(folder, first_port=port + 50) as server:
        assert server.uri == uri
        assert await asyncio.to_thread(ids_at, server.uri) == {"kept"}


async def test_a_crash_loses_nothing_acknowledged_and_ends_in_a_restart_on_the_same_port(
    build: Build, folder: Path, port: int
) -> None:
    acknowledged: list[str] = []
    with structlog.testing.capture_logs() as lines:
        async with EmbeddedServer(folder, build=build, first_port=port) as server:
            crashed = processes_in(folder)[1]
            writing = asyncio.create_task(asyncio.to_thread(insert_until_it_dies, server.uri, crashed, acknowledged))

            async def enough_written() -> bool:
                return len(acknowledged) >= 2_000

            await eventually(enough_written, seconds=60, what="2,000 documents are acknowledged")
            os.kill(crashed.pid, signal.SIGKILL)
            await writing

            await answers(server.uri)
            assert processes_in(folder)[1] != crashed
            assert set(acknowledged) <= await asyncio.to_thread(ids_at, server.uri)
    ended = [line for line in lines if line["event"] == "embedded server ended"]
    assert [line["exit_code"] for line in ended] == [-signal.SIGKILL]


@pytest.mark.parametrize("how", ["plainly", "forks"])
async def test_the_server_goes_when_its_parent_is_killed(
    how: str, folder: Path, start_parent: Callable[..., int]
) -> None:
    """What forks has a child that did not exec, and so holds the guardian's pipe open."""
    parent = start_parent(how)
    processes = processes_in(folder)

    os.kill(parent, signal.SIGKILL)

    await gone(processes)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
async def test_the_server_goes_when_parent_and_guardian_are_killed(
    folder: Path, start_parent: Callable[..., int]
) -> None:
    parent = start_parent()
    guardian, server = processes_in(folder)

    os.kill(guardian.pid, signal.SIGSTOP)  # so that it has no chance to do its duty
    await stands_still(guardian)
    os.kill(parent, signal.SIGKILL)
    os.kill(guardian.pid, signal.SIGKILL)

    await gone((server,))


async def test_a_start_after_everything_was_killed_just_works(
    folder: Path, port: int, start_parent: Callable[..., int]
) -> None:
    parent = start_parent()
    await asyncio.to_thread(insert, join(folder), "kept")

    for pid in (parent, *(process.pid for process in processes_in(folder))):
        os.kill(pid, signal.SIGKILL)

    async with EmbeddedServer(folder, first_port=port) as server:
        assert await asyncio.to_thread(ids_at, server.uri) == {"kept"}


async def test_a_start_right_after_the_parent_was_killed_waits_for_the_old_server_to_go(
    folder: Path, port: int, start_parent: Callable[..., int]
) -> None:
    parent = start_parent()
    left_behind = processes_in(folder)
    await asyncio.to_thread(insert, join(folder), "kept")

    os.kill(parent, signal.SIGKILL)

    async with EmbeddedServer(folder, first_port=port) as server:
        assert not any(process.is_alive() for process in left_behind)
        assert await asyncio.to_thread(ids_at, server.uri) == {"kept"}


async def test_a_killed_guardian_is_replaced_and_its_server_too(folder: Path, port: int) -> None:
    with structlog.testing.capture_logs() as lines:
        async with EmbeddedServer(folder, build="python", first_port=port) as server:
            uri, before = server.uri, processes_in(folder)

            os.kill(before[0].pid, signal.SIGKILL)

            await gone(before)
            await answers(uri)
            after = processes_in(folder)
        assert not any(process.is_alive() for process in after)
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "guardian of the embedded server ended"
    ]


async def test_a_server_whose_processes_cannot_be_noted_is_started_again_all_the_same_and_noted_later(
    folder: Path, port: int
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with EmbeddedServer(folder, build="python", first_port=port) as server:
            crashed = processes_in(folder)[1]
            (folder / "server.json.new").mkdir()  # stands for a disk without room

            os.kill(crashed.pid, signal.SIGKILL)

            await gone((crashed,))
            await answers(server.uri)
            (folder / "server.json.new").rmdir()

            await eventually(lambda: joined(folder), seconds=30, what="others can join")
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "processes of the embedded server cannot be noted"
    ]
    assert not _pings(server.uri)


async def test_a_start_that_cannot_be_noted_is_refused_at_once_and_leaves_nothing_behind(
    folder: Path, port: int
) -> None:
    (folder / "server.json.new").mkdir(parents=True)
    server = EmbeddedServer(folder, build="python", first_port=port)

    async with asyncio.timeout(30):
        with pytest.raises(ConfigurationError, match=r"cannot be used \(Is a directory\): set JOBQUEUE_DATA_DIR"):
            await server.start()

    assert not _pings(server.uri)
    await DataDir(folder).lock()  # is free


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can change the limits of a running process")
async def test_a_server_whose_disk_was_full_is_started_again(folder: Path, port: int) -> None:
    """It would stay, and refuse everything also when there is room."""
    async with EmbeddedServer(folder, build="python", first_port=port) as server:
        await asyncio.to_thread(insert, server.uri, "before")
        _, process = processes_in(folder)
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, hard))
        with pytest.raises(PyMongoError):
            await asyncio.to_thread(insert, server.uri, "refused")

        await gone((process,))
        await answers(server.uri)
        await asyncio.to_thread(insert, server.uri, "after")
        assert await asyncio.to_thread(ids_at, server.uri) == {"before", "after"}


async def test_a_guardian_that_cannot_be_started_is_tried_again(
    folder: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with EmbeddedServer(folder, build="python", first_port=port) as server:
            before = processes_in(folder)
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", str(folder / "nothing"))  # stands for a system without room for it
                os.kill(before[0].pid, signal.SIGKILL)

                async def refused() -> bool:
                    return any(line.get("reason") for line in lines)

                await eventually(refused, seconds=30, what="a start of the guardian to fail")

            await answers(server.uri)
    assert not _pings(server.uri)


async def test_a_guardian_that_cannot_be_started_at_first_is_why_there_is_no_server(
    folder: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(folder / "nothing"))

    async with asyncio.timeout(30):
        with pytest.raises(ConfigurationError, match=r"(?s)does not start; it said:\n  .*No such file"):
            await EmbeddedServer(folder, build="python", first_port=port).start()

    await DataDir(folder).lock()  # is free


async def test_what_the_parent_forked_does_not_keep_the_folder_when_the_parent_is_killed(
    folder: Path, start_parent: Callable[..., int]
) -> None:
    parent = start_parent("forks")

    os.kill(parent, signal.SIGKILL)

    await DataDir(folder).lock()


async def test_a_fork_leaves_the_lock_to_its_parent(folder: Path) -> None:
    held = DataDir(folder)
    await held.lock()
    if (fork := os.fork()) == 0:
        os._exit(0)
    await asyncio.to_thread(os.waitpid, fork, 0)

    with pytest.raises(ConfigurationError, match="is in use by process"):
        await DataDir(folder).lock()
    held.unlock()


async def test_a_fork_does_not_keep_the_server_from_being_stopped(folder: Path, port: int) -> None:
    with structlog.testing.capture_logs() as lines:
        async with EmbeddedServer(folder, build="python", first_port=port):
            if (fork := os.fork()) == 0:
                signal.pause()
    _kill(fork)
    await asyncio.to_thread(os.waitpid, fork, 0)

    assert lines == []


async def test_leftovers_are_stopped_and_strangers_with_their_ids_are_not(folder: Path) -> None:
    """A guardian killed together with its parent leaves the server running where the kernel has no way to tell it."""
    with contextlib.ExitStack() as stack:
        orphan, stranger = (
            stack.enter_context(subprocess.Popen(["sleep", "600"]))  # noqa: ASYNC220 - returns at once
            for _ in range(2)
        )
        stack.callback(stranger.kill)
        stack.callback(orphan.kill)
        directory = DataDir(folder)
        await directory.lock()
        ours = Process.of(orphan.pid)
        assert ours is not None
        directory.write(ServerRecord(1, (ours, Process(stranger.pid, "at another time"))))

        await directory.end_leftovers()

        assert orphan.wait() == -signal.SIGTERM
        assert stranger.poll() is None
        directory.unlock()


@pytest.mark.skipif(shutil.which("ps") is None, reason="ps is not installed")
@pytest.mark.parametrize("identify", [data_dir.identify, data_dir._identify_by_ps])
def test_a_process_is_told_from_others_and_from_its_own_remains(identify: Callable[[int], str | None]) -> None:
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        alive = identify(sleeping.pid)
        assert alive is not None
        assert alive == identify(sleeping.pid)
        assert alive != identify(1)

        sleeping.kill()
        os.waitid(os.P_PID, sleeping.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still there as a zombie
        assert identify(sleeping.pid) is None
    assert identify(sleeping.pid) is None


async def test_two_servers_in_one_folder_are_refused(folder: Path, port: int) -> None:
    async with EmbeddedServer(folder, build="python", first_port=port) as server:
        with pytest.raises(ConfigurationError, match=rf"is in use by process {os.getpid()}: .* JOBQUEUE_DATA_DIR"):
            await EmbeddedServer(folder, first_port=port).start()

        await answers(server.uri)


async def test_a_port_in_use_is_passed_over(folder: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        async with EmbeddedServer(folder, build="python", first_port=port) as server:
            assert f":{port}/" not in server.uri
            await answers(server.uri)


async def test_servers_started_at_once_get_a_port_each(tmp_path: Path, port: int) -> None:
    servers = [EmbeddedServer(tmp_path / name, build="python", first_port=port) for name in "abc"]
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))

        for server, name in zip(servers, "abc", strict=True):
            await asyncio.to_thread(insert, server.uri, name)
        for server, name in zip(servers, "abc", strict=True):
            assert await asyncio.to_thread(ids_at, server.uri) == {name}


async def test_a_folder_stays_with_the_build_that_made_it(folder: Path, port: int) -> None:
    async with EmbeddedServer(folder, build="python", first_port=port):
        pass

    with pytest.raises(ConfigurationError, match=r"made by the python build .* JOBQUEUE_EMBEDDED_SERVER"):
        await EmbeddedServer(folder, build="rust", first_port=port).start()


async def test_without_the_extra_it_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "secantus", None)  # which is how Python notes that a module is not to be found

    with pytest.raises(
        ConfigurationError, match=r"set JOBQUEUE_MONGODB_URI, or .* `pip install 'jobqueue\[embedded\]'`"
    ):
        await EmbeddedServer(folder, build="python").start()


async def test_without_the_rust_build_it_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))

    with pytest.raises(ConfigurationError, match=r"secantusd-rs.* is not on the PATH"):
        await EmbeddedServer(folder, build="rust").start()


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"file/data cannot be used \(Not a directory\)"):
        await EmbeddedServer(tmp_path / "file" / "data").start()


async def test_a_server_that_does_not_start_is_quoted_without_its_stack_and_leaves_nothing_behind(
    build: Build, folder: Path, port: int
) -> None:
    storage = DataDir(folder).storage(build)
    storage.mkdir(parents=True)
    for name in ("WiredTiger", "WiredTiger.wt", "WiredTiger.turtle"):
        (storage / name).write_text("no database")

    with pytest.raises(ConfigurationError, match=r"(?s)does not start; it said:\n  \S.*WT_") as refused:
        await EmbeddedServer(folder, first_port=port).start()

    assert "Traceback" not in str(refused.value)
    assert not any(process.is_alive() for process in processes_in(folder))
    await DataDir(folder).lock()  # is free


async def test_others_join_the_server_that_runs(folder: Path, port: int) -> None:
    with pytest.raises(ConfigurationError, match=r"set JOBQUEUE_MONGODB_URI, or first start `jobqueue serve`"):
        join(folder)

    async with EmbeddedServer(folder, build="python", first_port=port) as server:
        assert join(folder) == server.uri

    with pytest.raises(ConfigurationError, match=r"first start `jobqueue serve`"):
        join(folder)


async def test_a_copied_folder_leaves_the_server_of_the_original_alone(folder: Path, tmp_path: Path, port: int) -> None:
    copy = tmp_path / "copy"
    async with EmbeddedServer(folder, build="python", first_port=port) as server:
        await asyncio.to_thread(insert, server.uri, "in the original")
        shutil.copytree(folder, copy)
        with pytest.raises(ConfigurationError, match=r"first start `jobqueue serve`"):
            join(copy)

        async with EmbeddedServer(copy, first_port=port) as other:
            assert other.uri != server.uri
            assert all(process.is_alive() for process in processes_in(folder))


async def test_a_folder_that_is_moved_keeps_its_server(folder: Path, tmp_path: Path, port: int) -> None:
    moved = tmp_path / "moved"
    async with EmbeddedServer(folder, build="python", first_port=port) as server:
        await asyncio.to_thread(folder.rename, moved)

        assert join(moved) == server.uri
        await asyncio.to_thread(moved.rename, folder)


async def test_a_server_can_be_started_and_stopped_again_and_again(folder: Path, port: int) -> None:
    server = EmbeddedServer(folder, first_port=port)
    for _ in range(3):
        await server.start()
        await answers(server.uri)
        await server.stop()
    await server.stop()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(folder: Path, port: int) -> None:
    starting = asyncio.create_task(EmbeddedServer(folder, build="python", first_port=port).start())

    async def server_runs() -> bool:
        record = DataDir(folder).read()
        return record is not None and record.is_running()

    await eventually(server_runs, seconds=30, what="the server process runs")
    starting.cancel()
    await asyncio.wait({starting})

    assert not any(process.is_alive() for process in processes_in(folder))
    await DataDir(folder).lock()  # is free
