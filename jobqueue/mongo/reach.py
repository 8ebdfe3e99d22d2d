"""Why a process cannot use its database, for whoever starts it: which servers there are, and what each of them did.

Clients of the API are told less (`calls.py`). Of the driver's own sentences only numbers and marks are taken, since
they may quote what is secret.
"""

from __future__ import annotations

import errno
import os
import re
import socket

from pymongo.errors import (
    ConfigurationError,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TopologyDescription

from jobqueue.mongo.calls import reason_of

AUTHENTICATION_FAILED = 18
ATLAS_ERROR = 8000
"""Atlas says all that it refuses by this code; to a wrong password it adds "bad auth"."""

_NUMBER = re.compile(r"\[Errno (-?\d+)\]")
_UNKNOWN_NAME = {getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_AGAIN", "EAI_FAIL")}
_MARKS = (
    ("CERTIFICATE_VERIFY_FAILED", "TLS: its certificate is not accepted"),
    ("SSL", "TLS: the handshake failed"),
    ("connection closed", "closed the connection"),
)


def explain(error: PyMongoError, topology: TopologyDescription) -> str:
    """What this error says about these servers; without a credential, as they are known without one."""
    servers = {_written(*address): server for address, server in topology.server_descriptions().items()}
    names = ", ".join(sorted(servers))
    if isinstance(error, ServerSelectionTimeoutError):
        return _none_selected(topology, servers)
    if isinstance(error, OperationFailure) and _is_bad_password(error):
        return f"user name or password is not accepted ({names})"
    if isinstance(error, ConfigurationError) and type(error.__cause__).__module__.startswith("dns."):
        return f"the SRV record of {names} cannot be found in DNS ({type(error.__cause__).__name__})"
    return f"{reason_of(error)} ({names})"


def _none_selected(topology: TopologyDescription, servers: dict[str, ServerDescription]) -> str:
    if not servers:
        return f"no server that answered is in a replica set named {topology.replica_set_name!r}"
    each = ", ".join(f"{name} ({_trouble(server)})" for name, server in sorted(servers.items()))
    if topology.has_known_servers:
        return f"there is no primary: {each}"
    return f"no MongoDB server could be reached: {each}"


def _is_bad_password(error: OperationFailure) -> bool:
    return error.code == AUTHENTICATION_FAILED or (error.code == ATLAS_ERROR and "bad auth" in str(error))


def _written(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _trouble(server: ServerDescription) -> str:
    """The kind of it. Nothing but the text is left of what caused the driver's error."""
    error = server.error
    if error is None and server.is_server_type_known:
        return server.server_type_name
    if error is None or isinstance(error, NetworkTimeout):
        return "no answer in time"
    said = str(error)
    for mark, meaning in _MARKS:
        if mark in said:
            return meaning
    number = _NUMBER.search(said)
    return _meaning(int(number[1])) if number else type(error).__name__


def _meaning(number: int) -> str:
    if number in _UNKNOWN_NAME:
        return "the name is not known"
    return "the connection is refused" if number == errno.ECONNREFUSED else os.strerror(number)
