"""Documents made by hand in mongosh: filled in, given a string id, or failed with the reason.

What the service stores has a `seq`; what it has not is what somebody typed. Only what is missing is filled in.
Ids that are no strings (an ObjectId, a number) become strings: the repaired copy is inserted first and the
original deleted second, and the copy carries a mark made from the original's id, so that doing it again after a
crash recognises the first try.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import bson
import structlog
from bson import Int64, ObjectId
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from jobqueue.clock import Identifiers
from jobqueue.errors import InvalidJob
from jobqueue.job import DEFAULT_MAX_RETRIES, DEFAULT_NAME, Candidate, Job, Status
from jobqueue.mongo import indexes, moves
from jobqueue.mongo.calls import MAINTENANCE_SECONDS, unavailable
from jobqueue.mongo.documents import (
    Unreadable,
    encode,
    error_document,
    is_whole,
    plain,
    read_document,
    readable_candidates,
    unreadable_error,
)
from jobqueue.mongo.inserts import DUPLICATE_KEY
from jobqueue.mongo.store import Store

log = structlog.get_logger(__name__)

WHAT = "adopt jobs made by hand"
KEYS = ("idempotencyKey", "uniqueKey")


class Adoption:
    """The verb `adopt`."""

    def __init__(self, store: Store, identifiers: Identifiers) -> None:
        self._store = store
        self._identifiers = identifiers

    async def adopt(self, suspects: Sequence[Any], *, at: datetime, limit: int) -> Sequence[Candidate]:
        """Repair documents without `seq`, and the pending ones with these ids; returns those pending now."""
        pending = []
        for document in [*await self._find_new(limit=limit), *await self._find_suspects(suspects)]:
            repaired = self._repair(document, at=at)
            if job_id := await self._put(document, repaired):
                log.info("job adopted", job_id=job_id, status=repaired["status"])
                pending += [repaired | {"_id": job_id}] if repaired["status"] == Status.PENDING.value else []
        return readable_candidates(pending)

    def _repair(self, document: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
        repaired = self._defaults(at) | {name: value for name, value in document.items() if value is not None}
        repaired["_id"] = text_id(document["_id"])
        repaired["status"] = _status(repaired, at=at)
        if repaired["status"] in moves.ENDED:
            repaired.setdefault("finishedAt", at)
        try:
            readable = repaired | _as_numbers(read_document(repaired), repaired)
            encode(readable)
            return readable
        except (Unreadable, InvalidJob) as error:
            reason = error_document(unreadable_error(str(error), at=at))
            return repaired | {"status": Status.FAILED.value, "finishedAt": at, "errors": [reason]}

    def _defaults(self, at: datetime) -> dict[str, Any]:
        return {
            "type": DEFAULT_NAME,
            "queue": DEFAULT_NAME,
            "payload": None,
            "priority": 0,
            "status": None,
            "retryCount": 0,
            "maxRetries": DEFAULT_MAX_RETRIES,
            "runAt": at,
            "createdAt": at,
            "updatedAt": at,
            "seq": Int64(self._identifiers.seq(at)),
        }

    async def _put(self, document: Mapping[str, Any], repaired: Mapping[str, Any]) -> str | None:
        """Store the repaired document and return its id. One that refuses is left as it is, and told in the log."""
        try:
            if isinstance(document["_id"], str):
                return await self._fill_in(document, repaired)
            return await self._rename(document, repaired)
        except OperationFailure as error:
            log.warning("job cannot be adopted", job_id=repaired["_id"], code=error.code)
            return None
        except PyMongoError as error:
            raise unavailable(WHAT, error) from error

    async def _rename(self, document: Mapping[str, Any], repaired: Mapping[str, Any]) -> str:
        mark = _mark(document["_id"])
        # The unique keys would collide with the original's, so they follow when that is gone.
        keys = {name: repaired[name] for name in KEYS if name in repaired}
        copy = {name: value for name, value in repaired.items() if name not in keys} | {"insertId": mark}
        job_id = await self._insert_copy(copy, mark)
        await self._delete_original(document)
        if keys:
            await self._add_keys(job_id, mark, keys)
        return job_id

    async def _insert_copy(self, copy: dict[str, Any], mark: str) -> str:
        for job_id in (copy["_id"], f"{copy['_id']}-{mark}"):
            try:
                await self._insert(copy | {"_id": job_id})
            except DuplicateKeyError:
                if not await self._has_mark(job_id, mark):
                    continue
            return str(job_id)
        raise OperationFailure("both ids are taken by other jobs", DUPLICATE_KEY)

    async def _find_new(self, *, limit: int) -> Sequence[Mapping[str, Any]]:
        # read: documents that the service did not make; null is what an index calls missing
        return await self._store.hinted(
            WHAT,
            indexes.NEWEST,
            lambda hint: self._store.jobs.find({"seq": None}, limit=limit, **hint).to_list(None),
            seconds=MAINTENANCE_SECONDS,
        )

    async def _find_suspects(self, ids: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        # read: pending documents among these ids
        query = {"_id": {"$in": list(ids)}, "status": Status.PENDING.value, "seq": {"$ne": None}}
        if not ids:
            return []
        return await self._store.calls.run(
            WHAT,
            lambda: self._store.jobs.find(query, **self._store.by_id).to_list(None),
            seconds=MAINTENANCE_SECONDS,
        )

    async def _fill_in(self, document: Mapping[str, Any], repaired: Mapping[str, Any]) -> str | None:
        # adopt: only while it is as it was found
        query = {"_id": document["_id"], "seq": document.get("seq"), "status": document.get("status")}
        changed = {name: value for name, value in repaired.items() if document.get(name) is not value}
        nulls = [name for name, value in document.items() if value is None and name not in changed]
        update = {"$set": changed} | ({"$unset": dict.fromkeys(nulls, "")} if nulls else {})
        result = await self._store.calls.attempt(
            lambda: self._store.jobs.update_one(query, update, **self._store.by_id), seconds=MAINTENANCE_SECONDS
        )
        return document["_id"] if result.matched_count == 1 else None

    async def _insert(self, document: dict[str, Any]) -> None:
        # adopt: the copy with a string id, the unique index is the guard
        await self._store.calls.attempt(lambda: self._store.jobs.insert_one(document), seconds=MAINTENANCE_SECONDS)

    async def _has_mark(self, job_id: str, mark: str) -> bool:
        # read: whether this is the copy of an earlier try
        found = await self._store.calls.attempt(
            lambda: self._store.jobs.find_one({"_id": job_id}, {"insertId": 1}), seconds=MAINTENANCE_SECONDS
        )
        return found is not None and found.get("insertId") == mark

    async def _delete_original(self, document: Mapping[str, Any]) -> None:
        # adopt: the original goes, only while it is as it was found
        query = {"_id": document["_id"], "seq": document.get("seq")}
        await self._store.calls.attempt(
            lambda: self._store.jobs.delete_one(query, **self._store.by_id), seconds=MAINTENANCE_SECONDS
        )

    async def _add_keys(self, job_id: str, mark: str, keys: Mapping[str, Any]) -> None:
        # adopt: the original's unique keys, only for its copy
        query = {"_id": job_id, "insertId": mark}
        await self._store.calls.attempt(
            lambda: self._store.jobs.update_one(query, {"$set": keys}, **self._store.by_id),
            seconds=MAINTENANCE_SECONDS,
        )


def text_id(original: Any) -> str:
    """The string that an id becomes: the same each time, and what mongosh shows where that is short."""
    if isinstance(original, str):
        return original
    if isinstance(original, ObjectId):
        return str(original)
    if is_whole(original):
        return str(int(original))
    return _mark(original)


def _mark(original: Any) -> str:
    return hashlib.sha256(bson.encode({"_id": original})).hexdigest()[:24]


def _status(fields: Mapping[str, Any], *, at: datetime) -> Any:
    status = fields["status"]
    if status is None:
        run_at = plain(fields["runAt"])
        later = isinstance(run_at, datetime) and run_at > at
        return Status.SCHEDULED.value if later else Status.PENDING.value
    # Nobody runs what says "processing" and has no lease.
    unowned = status == Status.PROCESSING.value and "lease" not in fields
    return Status.PENDING.value if unowned else status


def _as_numbers(job: Job, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the indexes and the counters need as a number or a time and somebody typed as text."""
    wanted = {
        "priority": job.priority,
        "retryCount": job.retry_count,
        "maxRetries": job.max_retries,
        "runAt": job.run_at,
    }
    return {name: value for name, value in wanted.items() if plain(fields[name]) != value}
