"""The servers of the peers: children of the trial, on a free loopback port, their data in a folder on the disk."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.ports import free_port

START_SECONDS = 60.0
STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


class Backend:
    """A running server."""

    version = ""
    durability = ""

    def fresh(self) -> str:
        """The URL of an empty store."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the server, if it was started here."""


class Redis(Backend):
    """As it comes, or with every write synced before it is acknowledged."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        data = folder / "redis"
        data.mkdir()
        self._port = free_port()
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(data), "--loglevel", "warning"]
        self.durability = "the default: snapshots; a crash loses minutes"
        if durable:
            options += ["--appendonly", "yes", "--appendfsync", "always"]
            self.durability = "appendonly, appendfsync always"
        told = subprocess.check_output(["redis-server", "--version"], text=True)
        self.version = "Redis " + told.partition("v=")[2].split()[0]
        self._server = start(["redis-server", *options], folder / "redis.log")
        wait_for_port(self._server, self._port)

    def fresh(self) -> str:
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(64).startswith(b"+OK")
        return f"redis://127.0.0.1:{self._port}/0"

    def stop(self) -> None:
        stop(self._server)


class Postgres(Backend):
    """As it comes: fsync and synchronous_commit are on."""

    durability = "fsync and synchronous_commit on, the defaults"

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._programs = Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
        told = subprocess.check_output([self._programs / "postgres", "--version"], text=True)
        self.version = "PostgreSQL " + told.split()[2]
        self._port = free_port()
        data = folder / "postgres"
        data.mkdir(mode=0o700)
        self._account = _account_for(folder, data)
        log = folder / "postgres.log"
        make = [
            str(self._programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
        ]
        with log.open("wb") as out:
            subprocess.run(make, check=True, stdout=out, stderr=out, cwd=data, **self._account)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200"]
        command = [str(self._programs / "postgres"), "-D", str(data), "-p", str(self._port), *options]
        self._server = start(command, log, stop_signal=signal.SIGINT, cwd=data, **self._account)
        wait_for_port(self._server, self._port)
        self._until_it_answers()

    def fresh(self) -> str:
        name = f"bench{uuid4().hex[:8]}"
        self._sql(f"CREATE DATABASE {name}", "CHECKPOINT")
        return f"postgresql://postgres@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        stop(self._server, signal.SIGINT)

    def _until_it_answers(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._sql("SELECT 1")
            except subprocess.CalledProcessError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _sql(self, *statements: str) -> None:
        options = ["-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres", "-q", "-X"]
        for statement in statements:
            command = [str(self._programs / "psql"), *options, "-c", statement]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Mongo(Backend):
    """Runs already: `JOBQUEUE_BENCH_MONGODB_URI` says where. A store is a database in it, named after the `#`."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._uri = os.environ["JOBQUEUE_BENCH_MONGODB_URI"]
        self._names: list[str] = []

    def fresh(self) -> str:
        self._names.append(f"bench-{uuid4().hex[:12]}")
        return f"{self._uri}#{self._names[-1]}"

    def stop(self) -> None:
        from pymongo import MongoClient

        with MongoClient[dict[str, Any]](self._uri) as client:
            for name in self._names:
                client.drop_database(name)


BACKENDS: dict[str, Callable[..., Backend]] = {"redis": Redis, "postgres": Postgres, "mongodb": Mongo}


def start(
    command: Sequence[str], log: Path, *, stop_signal: signal.Signals = signal.SIGTERM, **options: Any
) -> subprocess.Popen[bytes]:
    """A child that is told to stop when its parent is gone."""

    def before_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(stop_signal))

    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=before_exec, **options
        )


def stop(child: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """Ask it to stop, kill it where that does not help; return when it is gone."""
    if child.poll() is None:
        child.send_signal(number)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def wait_for_port(child: subprocess.Popen[bytes], port: int) -> None:
    """Return when it takes connections."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server does not take connections on port {port}")


def _account_for(folder: Path, data: Path) -> dict[str, Any]:
    """Postgres does not run as root: then as the user that its package made."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    os.chown(data, account.pw_uid, account.pw_gid)
    folder.chmod(0o755)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
