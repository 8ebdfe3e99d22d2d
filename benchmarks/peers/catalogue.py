"""Every peer by its name."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.on_postgres import Oban, Procrastinate
from benchmarks.peers.on_redis import Arq, Celery, CeleryPrefork, Dramatiq, Huey, Rq, Saq, Taskiq
from benchmarks.peers.ours import Library, OverHttp
from benchmarks.peers.peer import Peer

PEERS: Mapping[str, type[Peer]] = {
    "jobqueue": Library,
    "jobqueue over HTTP": OverHttp,
    "oban": Oban,
    "procrastinate": Procrastinate,
    "saq": Saq,
    "arq": Arq,
    "taskiq": Taskiq,
    "dramatiq": Dramatiq,
    "celery": Celery,
    "celery prefork": CeleryPrefork,
    "rq": Rq,
    "huey": Huey,
}
OURS = ("jobqueue", "jobqueue over HTTP")
