"""The port of the service. One process listens on it alone; several processes of one supervisor share it.

They share it through SO_REUSEPORT: each listens on a socket of its own, and the kernel spreads the connections (Linux
does, evenly; macOS gives them all to one). Any process of the same user could join them unseen, so before they begin
their supervisor makes sure that nobody else listens, and keeps the port from then on: another jobqueue, of one
process or of several, is refused, also while none of them listens yet or any more.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jobqueue.errors import ConfigurationError

DEFAULT_PORT = 8080

_ANOTHER_HOST = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, None)
"""The host is none of this machine's. Where no address of a host can be had, asyncio's own loop gives no number."""


def url_of(host: str, port: int) -> str:
    """Where clients find what listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def refusal(host: str, port: int, error: OSError) -> ConfigurationError:
    """What to say when the address cannot be had: which of the two settings to change, and why."""
    unknown = isinstance(error, socket.gaierror)
    reason = os.strerror(error.errno) if error.errno and not unknown else error.strerror or str(error)
    setting = "JOBQUEUE_HOST" if unknown or error.errno in _ANOTHER_HOST else "JOBQUEUE_PORT"
    return ConfigurationError(f"cannot listen on {host}:{port} ({reason}); set {setting}")


@contextmanager
def reserved(host: str, port: int) -> Iterator[tuple[str, int]]:
    """Keep the port for processes that listen on it with SO_REUSEPORT; yields the address and the port, a free one
    where 0 is wanted. It is the same on all addresses of the host.

    Raises `ConfigurationError` when somebody listens there, or this system cannot share ports."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError(
            "JOBQUEUE_PROCESSES needs SO_REUSEPORT, which this system does not have: start processes by themselves,"
            " each with a JOBQUEUE_PORT of its own"
        )
    names: list[tuple[str, int]] = []
    with ExitStack() as stack:
        try:
            for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
                wanted = names[0][1] if names else port
                kept = stack.enter_context(_reserve(family, (address[0], wanted, *address[2:])))
                names.append(kept.getsockname()[:2])
        except OSError as error:
            raise refusal(host, port, error) from error
        yield names[0]


def _reserve(family: int, address: tuple[object, ...]) -> socket.socket:
    """A socket that is bound and never listens. First another one listens without sharing, which fails wherever
    somebody listens or reserves; while it does, the port is bound for sharing. What stays no longer says
    SO_REUSEADDR, for two sockets that both do, and do not listen, may have one port."""
    with _bound(family, address) as alone:
        alone.listen()
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept = _bound(family, alone.getsockname(), socket.SO_REUSEPORT)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return kept


def _bound(family: int, address: tuple[object, ...], *options: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in (socket.SO_REUSEADDR, *options):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
