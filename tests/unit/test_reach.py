"""Why a process cannot connect: each server is named with the kind of its trouble, and nothing secret is."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    NetworkTimeout,
    OperationFailure,
    ProtocolError,
    ServerSelectionTimeoutError,
)
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from jobqueue.mongo.reach import explain

NOBODY = ServerSelectionTimeoutError("a: [Errno 111] Connection refused, Topology Description: <mongodb://me:s3cr3t@a>")
SECONDARY = {"ok": 1, "setName": "rs0", "hosts": ["b:27017"], "secondary": True, "maxWireVersion": 21}


def topology(*servers: ServerDescription, kind: int = TOPOLOGY_TYPE.Unknown, name: str | None = None) -> Any:
    settings: Any = None  # only asked for how often servers are looked at
    return TopologyDescription(kind, {each.address: each for each in servers}, name, None, None, settings)


def failed(error: Exception | None, host: str = "a", port: int | None = 27017) -> ServerDescription:
    return ServerDescription((host, port), error=error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AutoReconnect(f"a:27017: [Errno {socket.EAI_NONAME}] Name or service not known"), "the name is not known"),
        (AutoReconnect(f"a:27017: [Errno {socket.EAI_AGAIN}] Temporary failure"), "the name is not known"),
        (AutoReconnect(f"[Errno {errno.ECONNREFUSED}] Connect call failed ('::1', 1)"), "the connection is refused"),
        (AutoReconnect(f"[Errno {errno.EHOSTUNREACH}] No route"), os.strerror(errno.EHOSTUNREACH)),
        (NetworkTimeout("a:27017: timed out"), "no answer in time"),
        (None, "no answer in time"),
        (
            AutoReconnect("SSL handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED]"),
            "TLS: its certificate is not accepted",
        ),
        (AutoReconnect("SSL handshake failed: a: [Errno 104] Connection reset"), "TLS: the handshake failed"),
        (AutoReconnect("a:27017: connection closed"), "closed the connection"),
        (ProtocolError("Got response id 808465440"), "ProtocolError"),
    ],
)
def test_the_kind_of_trouble_is_told_beside_the_server(error: Exception | None, kind: str) -> None:
    said = explain(NOBODY, topology(failed(error)))

    assert said == f"no MongoDB server could be reached: a:27017 ({kind})"


def test_each_server_is_named_with_its_own() -> None:
    refused = AutoReconnect(f"[Errno {errno.ECONNREFUSED}] Connection refused")
    servers = topology(failed(refused, "::1", 1), failed(None, "/run/mongodb.sock", None))

    assert explain(NOBODY, servers) == (
        "no MongoDB server could be reached: /run/mongodb.sock (no answer in time), [::1]:1 (the connection is refused)"
    )


def test_a_replica_set_without_a_primary_is_not_called_unreachable() -> None:
    secondary = ServerDescription(("b", 27017), Hello(SECONDARY))
    servers = topology(failed(None), secondary, kind=TOPOLOGY_TYPE.ReplicaSetNoPrimary, name="rs0")

    assert explain(NOBODY, servers) == "there is no primary: a:27017 (no answer in time), b:27017 (RSSecondary)"


def test_a_replica_set_of_another_name_is_told() -> None:
    servers = topology(kind=TOPOLOGY_TYPE.ReplicaSetNoPrimary, name="rs1")

    assert explain(NOBODY, servers) == "no server that answered is in a replica set named 'rs1'"


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure("Authentication failed for me:s3cr3t", 18, {"codeName": "AuthenticationFailed"}),
        OperationFailure("bad auth : authentication failed", 8000, {"codeName": "AtlasError"}),
    ],
    ids=["MongoDB", "Atlas"],
)
def test_a_password_that_is_not_accepted_is_told_with_the_server(error: OperationFailure) -> None:
    assert explain(error, topology(failed(None))) == "user name or password is not accepted (a:27017)"


def test_what_else_a_server_refuses_and_the_driver_cannot_do_is_told_with_the_server() -> None:
    refused = OperationFailure("me:s3cr3t", 8000, {"codeName": "AtlasError"})

    assert explain(refused, topology(failed(None))) == "MongoDB refused (8000 AtlasError) (a:27017)"
    assert explain(ConfigurationError("s3cr3t"), topology(failed(None))) == (
        "MongoDB failed (ConfigurationError) (a:27017)"
    )
