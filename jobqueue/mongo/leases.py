"""Renewing leases: synchronous, on a connection of its own, so that it works while the event loop does not.

Renewal names the jobs of the running table and nothing else: a filter on the worker would also keep alive what
was claimed and never heard of. It only ever lengthens a lease, whatever the clocks do.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import MongoClient, ReadPreference, UpdateMany, UpdateOne
from pymongo.errors import PyMongoError

from jobqueue.job import Claim, JobId, LeaseId
from jobqueue.mongo import moves
from jobqueue.mongo.calls import unavailable
from jobqueue.mongo.documents import lease_id_in, plain
from jobqueue.mongo.store import BY_ID, DURABLE, LOCAL, MAX_IDS, chunks, features_of
from jobqueue.repository import Features, Held, ServerHello

WHAT = "renew leases"


class MongoLeaseStore:
    """`LeaseStore` on a client of its own, whose time-outs are the client's."""

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        database_name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._monotonic = monotonic
        self._jobs = client[database_name].get_collection(
            "jobs",
            write_concern=DURABLE,
            read_preference=ReadPreference.PRIMARY,
            read_concern=LOCAL,
        )
        self._features: Features | None = None

    def hello(self) -> ServerHello:
        """The primary's clock. Raises `Unavailable`."""
        started = self._monotonic()
        try:
            answer = self._client.admin.command("hello", read_preference=ReadPreference.PRIMARY)
        except PyMongoError as error:
            raise unavailable("reach MongoDB", error) from error
        round_trip_seconds = self._monotonic() - started
        self._features = self._features or features_of(answer, {})
        return ServerHello(plain(answer["localTime"]), round_trip_seconds, _identity(answer))

    def renew(self, claims: Sequence[Claim], expires_at: datetime) -> None:
        """stays processing: a later `lease.expiresAt` for those that still are ours. Raises `Unavailable`."""
        by_lease: defaultdict[LeaseId, list[JobId]] = defaultdict(list)
        for claim in claims:
            by_lease[claim.lease_id].append(claim.job_id)
        writes = [
            write
            for lease_id, job_ids in by_lease.items()
            for ids in chunks(job_ids, MAX_IDS)
            for write in self._renewals(ids, lease_id, expires_at)
        ]
        try:
            if writes:
                self._jobs.bulk_write(writes, ordered=False)
        except PyMongoError as error:
            raise unavailable(WHAT, error) from error

    def held(self, job_ids: Sequence[JobId]) -> Mapping[JobId, Held]:
        """Who owns these jobs now, and whether they are to stop. Raises `Unavailable`."""
        try:
            return {
                document["_id"]: _held(document) for ids in chunks(job_ids, MAX_IDS) for document in self._read(ids)
            }
        except PyMongoError as error:
            raise unavailable(WHAT, error) from error

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def _renewals(
        self, job_ids: Sequence[JobId], lease_id: LeaseId, expires_at: datetime
    ) -> Sequence[UpdateOne | UpdateMany]:
        # renew: stays processing, only by the lease that claimed it
        update = moves.renew(expires_at)
        # In a sharded cluster a multi-update may apply twice or not at all while data moves.
        if self._features is not None and self._features.sharded:
            return [UpdateOne(moves.owned(Claim(job_id, lease_id)), update, hint=self._hint) for job_id in job_ids]
        query = {"_id": {"$in": list(job_ids)}, "lease.id": lease_id}
        return [UpdateMany(query, update, hint=self._hint)]

    def _read(self, job_ids: Sequence[JobId]) -> Sequence[Mapping[str, Any]]:
        # read: owner and stop flag of these jobs
        return list(self._jobs.find({"_id": {"$in": list(job_ids)}}, {"lease.id": 1, moves.FLAG: 1}, hint=self._hint))

    @property
    def _hint(self) -> str | None:
        return BY_ID if self._features is not None and not self._features.embedded else None


def _held(document: Mapping[str, Any]) -> Held:
    return Held(lease_id_in(document), cancel_requested=moves.FLAG in document)


def _identity(hello: Mapping[str, Any]) -> str:
    """Changes whenever another primary, or the same one in another term, answers."""
    return "/".join(str(hello.get(name, "")) for name in ("primary", "me", "setVersion", "electionId"))
