"""What the answers of a server say about it: what is for the embedded server alone is done on no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobqueue.mongo.store import Store, features_of
from jobqueue.repository import Features

SESSIONS = {"logicalSessionTimeoutMinutes": 30}
REPLICA_SET = {"setName": "rs0", **SESSIONS}
ROUTER = {"msg": "isdbgrid", **SESSIONS}
EMBEDDED = {"setName": "secantus", **SESSIONS}


@pytest.mark.parametrize(
    ("hello", "features"),
    [
        (REPLICA_SET, {"replica_set", "change_streams", "transactions"}),
        (SESSIONS, set()),
        (ROUTER, {"sharded", "transactions"}),
        (EMBEDDED, {"embedded", "replica_set", "change_streams", "transactions"}),
    ],
    ids=["replica set", "standalone", "router", "embedded"],
)
def test_a_server_is_taken_for_what_it_says(hello: dict[str, Any], features: set[str]) -> None:
    found = features_of(hello, {"version": "8.0.4"})

    assert {name for name in Features.__slots__ if getattr(found, name) is True} - {"pipeline_updates"} == features
    assert (found.name, found.version) == ("SecantusDB" if "embedded" in features else "MongoDB", "8.0.4")


class Server:
    """A client, as far as a store asks it at the start."""

    def __init__(self, hello: dict[str, Any], *, retry_writes: bool) -> None:
        self.options = SimpleNamespace(retry_writes=retry_writes)
        self.admin = self
        self._answers = {"hello": hello, "buildInfo": {"version": "8.0.4"}}

    def __getitem__(self, name: str) -> Server:
        return self

    def get_collection(self, name: str, **options: Any) -> Server:
        return self

    async def command(self, name: str) -> dict[str, Any]:
        return self._answers[name]


@pytest.mark.parametrize(
    ("hello", "retry_writes", "begins"),
    [
        (REPLICA_SET, True, []),
        (REPLICA_SET, False, ["retryWrites=false"]),
        (ROUTER, True, []),
        (SESSIONS, True, ["MongoDB is no replica set"]),
        (EMBEDDED, False, []),
    ],
)
async def test_what_a_server_lacks_is_told_at_the_start(
    hello: dict[str, Any], retry_writes: bool, begins: list[str]
) -> None:
    client: Any = Server(hello, retry_writes=retry_writes)

    with capture_logs() as logs:
        await Store(client, "jobqueue").find_out()

    told = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert len(told) == len(begins)
    assert all(event.startswith(beginning) for event, beginning in zip(told, begins, strict=True))


@pytest.mark.parametrize(
    ("hello", "hint", "sparse"), [(REPLICA_SET, {"hint": "_id_"}, False), (EMBEDDED, {}, True)], ids=["MongoDB", "ours"]
)
async def test_hints_and_sparse_indexes_exclude_each_other(
    hello: dict[str, Any], hint: dict[str, str], sparse: bool
) -> None:
    client: Any = Server(hello, retry_writes=True)
    store = Store(client, "jobqueue")

    await store.find_out()

    assert (store.by_id, store.sparse) == (hint, sparse)
