"""The indexes: few, named, versioned; each serves the queries that name it as their hint.

A new definition gets a new version in its name, and the old index is dropped one release later, so that both
releases can run side by side. On MongoDB what must be absent rather than null is kept out by a partial filter
(sparse indexes are outside the Stable API); the embedded server looks things up through sparse ones only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import IndexModel
from pymongo.errors import OperationFailure, PyMongoError

from jobqueue.errors import SchemaConflict, Unavailable
from jobqueue.mongo.calls import INDEX_SECONDS, unavailable
from jobqueue.mongo.store import Collection, Store

CLAIM = "claim_v1"
DUE = "due_v1"
LEASE = "lease_v1"
NEWEST = "newest_v1"
STATUS_NEWEST = "status_newest_v1"
IDEMPOTENCY_KEY = "idempotency_key_v1"
UNIQUE_KEY = "unique_key_v1"
RETENTION = "retention_v2"
HEARTBEAT = "heartbeat_v1"
LOG_EXPIRY = "log_expiry_v1"

WORKER_TTL_SECONDS = 3600
CONFLICT_CODES = frozenset({85, 86})
UNAUTHORIZED = 13
DEFINING = ("unique", "sparse", "partialFilterExpression", "expireAfterSeconds")

Keys = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Index:
    """One index as it is to be."""

    name: str
    keys: Keys
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> IndexModel:
        return IndexModel(list(self.keys), name=self.name, **self.options)

    def is_like(self, found: Mapping[str, Any]) -> bool:
        """Whether an index that `index_information` describes is this one."""
        keys = [(name, int(direction)) for name, direction in found["key"]]
        options = {name: found[name] for name in DEFINING if found.get(name, False) is not False}
        return keys == list(self.keys) and options == dict(self.options)


def job_indexes(*, sparse: bool) -> Sequence[Index]:
    """The indexes of `jobs`. None is on the lease id or on `updatedAt`: each one is paid for in every move."""
    return [
        Index(
            CLAIM,
            [("queue", 1), ("status", 1), ("priority", -1), ("runAt", 1), ("_id", 1)],
            {"partialFilterExpression": {"status": "pending"}},
        ),
        Index(DUE, [("runAt", 1)], {"partialFilterExpression": {"status": "scheduled"}}),
        Index(LEASE, [("lease.expiresAt", 1)], _where({"status": "processing"}, sparse=sparse)),
        Index(NEWEST, [("seq", -1)]),
        # The dearest, since each move rewrites its entry, and yet for all states: docs/engine.md, "Indexes", says why.
        Index(STATUS_NEWEST, [("status", 1), ("seq", -1)]),
        _unique(IDEMPOTENCY_KEY, "idempotencyKey", sparse=sparse),
        _unique(UNIQUE_KEY, "uniqueKey", sparse=sparse),
        # Finished jobs only: with all of them, each move would rewrite an entry that no query looks at.
        Index(
            RETENTION,
            [("status", 1), ("finishedAt", 1)],
            {"partialFilterExpression": {"finishedAt": {"$exists": True}}},
        ),
    ]


LOG_INDEXES = (Index(LOG_EXPIRY, [("expiresAt", 1)], {"expireAfterSeconds": 0}),)
WORKER_INDEXES = (Index(HEARTBEAT, [("heartbeatAt", 1)], {"expireAfterSeconds": WORKER_TTL_SECONDS}),)


def _unique(name: str, field_name: str, *, sparse: bool) -> Index:
    # One field, its scope inside the value: a compound sparse index would also hold what has no key.
    return Index(name, [(field_name, 1)], {"unique": True, **_where({field_name: {"$exists": True}}, sparse=sparse)})


def _where(condition: Mapping[str, Any], *, sparse: bool) -> Mapping[str, Any]:
    return {"sparse": True} if sparse else {"partialFilterExpression": condition}


async def ensure_indexes(store: Store) -> None:
    """Create what is missing. Raises `SchemaConflict`, `Unavailable`."""
    await _ensure(store, store.jobs, job_indexes(sparse=store.sparse))
    await _ensure(store, store.workers, WORKER_INDEXES)
    await _ensure(store, store.job_logs, LOG_INDEXES)


async def check_indexes(store: Store) -> None:
    """Raises `Unavailable` when an index is missing."""
    found = await store.calls.run("read the indexes", store.jobs.index_information)
    missing = [index.name for index in job_indexes(sparse=store.sparse) if index.name not in found]
    if missing:
        raise Unavailable(f"indexes are missing: {', '.join(missing)}")


async def _ensure(store: Store, collection: Collection, wanted: Sequence[Index]) -> None:
    found = await store.calls.run("read the indexes", collection.index_information)
    for index in wanted:
        if index.name in found and not index.is_like(found[index.name]):
            raise _conflict(collection, index.name)
    missing = [index for index in wanted if index.name not in found]
    if missing:
        await _create(store, collection, missing)


async def _create(store: Store, collection: Collection, missing: Sequence[Index]) -> None:
    # Not the default quorum of all voters: one that is down would keep every process from starting.
    replica_set = store.features.replica_set and not store.features.embedded
    options: dict[str, Any] = {"commitQuorum": "majority"} if replica_set else {}
    models = [index.model for index in missing]
    try:
        await store.calls.attempt(lambda: collection.create_indexes(models, **options), seconds=INDEX_SECONDS)
    except OperationFailure as error:
        if error.code in CONFLICT_CODES:
            raise _conflict(collection, ", ".join(index.name for index in missing)) from error
        if error.code == UNAUTHORIZED:
            names = ", ".join(index.name for index in missing)
            raise Unavailable(f"no right to create the missing indexes {names}") from error
        raise unavailable("create the indexes", error) from error
    except PyMongoError as error:
        raise unavailable("create the indexes", error) from error


def _conflict(collection: Collection, names: str) -> SchemaConflict:
    return SchemaConflict(
        f"the collection {collection.name} has another index where {names} should be; "
        "`jobqueue doctor --fix` replaces it"
    )
