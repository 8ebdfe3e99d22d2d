"""The commands as processes: what they print, how they refuse, and that Ctrl-C ends them in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from processes import PROGRAM

from jobqueue.data_dir import DataDir

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "with a space"


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts the program in a process group of its own, with its data in the folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    with ExitStack() as stack:

        def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *arguments],
                env={**inherited, "JOBQUEUE_DATA_DIR": str(folder), **settings},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def banner_of(process: subprocess.Popen[str]) -> str:
    """What it prints up to the last of the three calls."""
    assert process.stdout is not None
    lines: list[str] = []
    while sum("curl" in line for line in lines) < 3:
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()
    return "".join(lines)


def refusal_of(process: subprocess.Popen[str]) -> str:
    """The one line that a process which does not start prints."""
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.count("\n") == 1, errors
    return errors


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_calls_of_the_banner_work_as_they_stand(start: Start) -> None:
    calls = re.findall(r"^ +(curl .+)$", banner_of(start("serve", "--port", "0")), re.MULTILINE)

    posted, seen, listed = (
        json.loads(subprocess.run(["sh", "-c", call], capture_output=True, check=True, timeout=60).stdout)
        for call in calls
    )

    assert (posted["type"], posted["status"]) == ("email", "pending")
    assert (seen["id"], seen["status"], seen["result"]) == (posted["id"], "completed", {"simulated": True})
    assert listed == [seen]


def test_ctrl_c_stops_the_service_in_order_and_the_database_after_it(start: Start, folder: Path) -> None:
    serving = start("serve", "--port", "0")
    banner_of(serving)
    record = DataDir(folder).read()

    os.killpg(serving.pid, signal.SIGINT)  # as the terminal does: to the whole group

    _, errors = serving.communicate(timeout=60)
    assert serving.returncode == 0
    assert [json.loads(line)["event"] for line in errors.splitlines()] == ["started", "stopping", "stopped"]
    assert record is not None
    assert not any(process.is_alive() for process in record.processes)


def test_it_works_and_stops_in_order_though_nobody_reads_what_it_prints(start: Start, port: int) -> None:
    # With buffers, as where nothing is set: what is left in them must not change the exit code either.
    serving = start("serve", "--port", str(port), PYTHONUNBUFFERED="")
    assert serving.stdout is not None
    assert serving.stderr is not None
    serving.stdout.close()
    serving.stderr.close()
    job = {"id": "j", "type": "fail", "maxRetries": 1}
    posting = Request(f"http://127.0.0.1:{port}/jobs", json.dumps(job).encode(), {"Content-Type": "application/json"})
    _when_it_listens(posting, serving)

    with urlopen(f"http://127.0.0.1:{port}/jobs/j?wait=20", timeout=30) as response:
        failed = json.load(response)
    serving.send_signal(signal.SIGINT)

    # That it failed is logged before it is reported; if that cost the outcome, its lease would run out.
    assert [error["type"] for error in failed["errors"]] == ["jobqueue.builtin.TaskFailed"]
    assert serving.wait(timeout=60) == 0


def _when_it_listens(request: Request, process: subprocess.Popen[str]) -> None:
    for _ in range(300):
        assert process.poll() is None
        with suppress(URLError), urlopen(request, timeout=10):
            return
        time.sleep(0.1)
    raise TimeoutError("it does not listen")


def test_ctrl_c_reaches_each_of_several_processes_once_and_the_database_after_them(start: Start, folder: Path) -> None:
    serving = start("serve", "--port", "0", "--processes", "2")
    assert "is ready, in 2 processes." in banner_of(serving)
    record = DataDir(folder).read()

    os.killpg(serving.pid, signal.SIGINT)

    output, errors = serving.communicate(timeout=60)
    assert (serving.returncode, output.count("is ready")) == (0, 0)
    events = [(line.get("process"), line["event"]) for line in map(json.loads, errors.splitlines())]
    assert sorted(events[3:]) == [(1, "stopped"), (1, "stopping"), (2, "stopped"), (2, "stopping")]
    assert events[:3] == [(1, "started"), (2, "started"), (None, "processes started")]
    assert record is not None
    assert not any(process.is_alive() for process in record.processes)


def test_api_and_worker_join_the_server_of_the_folder(start: Start) -> None:
    (uri,) = re.findall(r"mongosh '(\S+)'", banner_of(start("serve", "--port", "0")))

    for command, settings in (("api", {"JOBQUEUE_PORT": "0"}), ("worker", {"JOBQUEUE_SIMULATE": "true"})):
        joined = start(command, **settings)
        assert joined.stdout is not None
        while not (line := joined.stdout.readline()).startswith("  MongoDB"):
            assert line, joined.communicate()
        assert uri in line


def test_every_address_in_the_banner_of_a_worker_is_there(start: Start) -> None:
    banner_of(start("serve", "--port", "0"))
    worker = start("worker", "--port", "0", JOBQUEUE_SIMULATE="true")
    assert worker.stdout is not None
    while not (line := worker.stdout.readline()).startswith("  HTTP"):
        assert line, worker.communicate()

    addresses = re.findall(r"http://[^\s,)]+", line)

    assert len(addresses) == 4
    for address in addresses:
        with urlopen(address, timeout=60) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("command", ["api", "worker"])
def test_without_a_uri_and_without_a_server_to_join_it_says_what_to_do(command: str, start: Start) -> None:
    refusal = refusal_of(start(command, JOBQUEUE_SIMULATE="true"))

    assert "set JOBQUEUE_MONGODB_URI, or first start `jobqueue serve`" in refusal


def test_a_worker_without_tasks_says_what_to_do(start: Start) -> None:
    assert "give --tasks your_module, or set JOBQUEUE_SIMULATE=true" in refusal_of(start("worker"))


def test_a_second_serve_in_one_folder_says_whose_it_is(start: Start, folder: Path) -> None:
    first = start("serve", "--port", "0")
    banner_of(first)

    refusal = refusal_of(start("serve", "--port", "0"))

    assert f"{folder} is in use by process {first.pid}" in refusal


def test_a_port_that_is_taken_is_named_and_the_database_stopped_again(start: Start, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        refusal = refusal_of(start("serve", "--port", str(port)))

    assert f"cannot listen on 127.0.0.1:{port}" in refusal
    record = DataDir(folder).read()
    assert record is not None
    assert not any(process.is_alive() for process in record.processes)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
def test_a_database_that_does_not_answer_is_named_with_the_reason_without_the_password(
    driver: str, start: Start, port: int
) -> None:
    host = f"127.0.0.1:{port}"
    settings = {"JOBQUEUE_SIMULATE": "true", "JOBQUEUE_DRIVER": driver}
    processes = [
        start("worker", JOBQUEUE_MONGODB_URI=f"mongodb{uri}", **settings)
        for uri in (
            f"://me:s3cr3t@{host}/",
            "://me:s3cr3t@no-such-host.invalid/",
            "+srv://me:s3cr3t@nowhere.invalid/",
        )
    ]

    refused, unknown, without_record = [refusal_of(process) for process in processes]

    start_of_it = "jobqueue: cannot connect: "
    assert refused == f"{start_of_it}no MongoDB server could be reached: {host} (the connection is refused)\n"
    assert unknown.startswith(f"{start_of_it}no MongoDB server could be reached: no-such-host.invalid:27017 (")
    assert without_record.startswith(f"{start_of_it}the SRV record of nowhere.invalid cannot be found in DNS (")


def test_a_replica_set_that_the_server_is_not_in_is_named(start: Start, server_uri: str) -> None:
    refusal = refusal_of(start("worker", JOBQUEUE_MONGODB_URI=f"{server_uri}&replicaSet=rs7", JOBQUEUE_SIMULATE="true"))

    assert "no server that answered is in a replica set named 'rs7'" in refusal


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "mongodb://me:s3cr3t@2@db/",
            "no usable MongoDB URI (InvalidURI); in its user name and password each of",
        ),
        (
            "mongodb://me:s3cr3t]@db/",
            "no usable MongoDB URI (ValueError); in its user name and password each of",
        ),
        ("mongodb://db:port/", "no usable MongoDB URI (ValueError)\n"),
        ("mongodb://db/?tls=true&tlsCAFile=/no/such/file", "a file that JOBQUEUE_MONGODB_URI names cannot be used"),
    ],
)
def test_a_uri_that_makes_no_sense_is_one_sentence_without_the_password(uri: str, said: str, start: Start) -> None:
    refusal = refusal_of(start("worker", JOBQUEUE_MONGODB_URI=uri, JOBQUEUE_SIMULATE="true"))

    assert said in refusal
    assert "s3cr3t" not in refusal
