"""The port that several processes share: nobody else gets it, be it one process or several, early or late."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from jobqueue import ports
from jobqueue.errors import ConfigurationError
from jobqueue.loop import loop_factory
from jobqueue.ports import refusal, reserved

HOST = "127.0.0.1"


def listener(port: int, *, shared: bool) -> socket.socket:
    """As a process of the service listens."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        sock.bind((HOST, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


@pytest.fixture
def port() -> Iterator[int]:
    with reserved(HOST, 0) as (address, number):
        assert address == HOST
        yield number


def test_several_listen_on_a_port_that_is_kept_for_them(port: int) -> None:
    with listener(port, shared=True) as first, listener(port, shared=True) as second:
        with socket.create_connection((HOST, port), timeout=30):
            reached, _, _ = select.select([first, second], [], [], 30)

        assert len(reached) == 1


@pytest.mark.parametrize("listening", [0, 2])
def test_another_supervisor_is_refused_also_while_no_process_listens(port: int, listening: int) -> None:
    listeners = [listener(port, shared=True) for _ in range(listening)]

    with (
        pytest.raises(ConfigurationError, match=rf"^cannot listen on {HOST}:{port} \(.+\); set JOBQUEUE_PORT$"),
        reserved(HOST, port),
    ):
        pass

    for each in listeners:
        each.close()


@pytest.mark.parametrize("host", ["8.8.8.8", "999.1.1.1", "no-such-host.invalid"])
def test_a_host_that_is_not_of_this_machine_is_what_is_to_be_set(host: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=rf"^cannot listen on {host}:0 \([^\[]+\); set JOBQUEUE_HOST$"),
        reserved(host, 0),
    ):
        pass


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, loop_factory()], ids=["asyncio", "ours"])
@pytest.mark.parametrize(
    ("host", "setting"), [("8.8.8.8", "JOBQUEUE_HOST"), ("999.1.1.1", "JOBQUEUE_HOST"), (HOST, "JOBQUEUE_PORT")]
)
def test_a_single_process_knows_whether_host_or_port_is_wrong_whatever_loop_it_runs_on(
    host: str, setting: str, port: int, new_loop: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    async def listen() -> OSError:
        with pytest.raises(OSError) as refused:  # noqa: PT011  # its kind depends on the loop
            await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
        return refused.value

    with asyncio.Runner(loop_factory=new_loop) as runner:
        error = runner.run(listen())

    assert str(refusal(host, port, error)).endswith(f"; set {setting}")


def test_of_two_supervisors_that_begin_together_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one does all of it when the first has made its first step."""
    bound = ports._bound
    rivals = ExitStack()

    def bound_while_a_rival_begins(family: int, address: tuple[object, ...], *options: int) -> socket.socket:
        sock = bound(family, address, *options)
        monkeypatch.setattr(ports, "_bound", bound)
        rivals.enter_context(reserved(HOST, sock.getsockname()[1]))
        return sock

    monkeypatch.setattr(ports, "_bound", bound_while_a_rival_begins)

    with rivals, pytest.raises(ConfigurationError, match="cannot listen"), reserved(HOST, 0):
        pass


def test_a_single_process_is_refused_too(port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        listener(port, shared=False)


def test_processes_whose_supervisor_is_gone_keep_a_new_one_away() -> None:
    with reserved(HOST, 0) as (_, port):
        left = listener(port, shared=True)

    with left, pytest.raises(ConfigurationError, match="cannot listen"), reserved(HOST, port):
        pass
    with reserved(HOST, port):
        pass


def test_a_port_on_which_connections_were_just_closed_can_be_had() -> None:
    with listener(0, shared=False) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port), timeout=5):
            server.accept()[0].close()  # the side that closes first waits for a minute

    with reserved(HOST, port) as (_, number):
        assert number == port


def test_all_addresses_of_a_host_have_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    with reserved("both", 0) as (_, port):
        for address in ("127.0.0.1", "127.0.0.2"):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((address, port))


def test_a_system_that_cannot_share_ports_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")

    with pytest.raises(ConfigurationError, match="JOBQUEUE_PROCESSES needs SO_REUSEPORT"), reserved(HOST, 0):
        pass
