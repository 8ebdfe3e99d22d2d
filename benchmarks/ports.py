"""Ports for the servers that are measured. Of the standard library alone: the peers' environments have nothing else."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
