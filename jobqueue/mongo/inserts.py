"""enqueue: new jobs, written by group commit.

Each job is encoded when it is submitted, so that what cannot be stored is its own caller's error. Each carries a
random `insertId`: a batch whose answer was lost is written again, and a duplicate with the same `insertId` is
the job's own document. When the server acknowledged less than a majority, nobody in the batch is told "stored".
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from jobqueue.batching import BatchLimits, GroupCommit, Undelivered
from jobqueue.errors import (
    DuplicateJob,
    FieldProblem,
    InvalidJob,
    JobQueueError,
    OutcomeUnknown,
    Unavailable,
)
from jobqueue.job import NEAR, Job, Status
from jobqueue.mongo.calls import (
    FIRST_PAUSE_SECONDS,
    LAST_PAUSE_SECONDS,
    REFUSED_ITEM_CODES,
    describe,
    may_have_happened,
    unavailable,
)
from jobqueue.mongo.documents import encode, read_or_salvage, to_document
from jobqueue.mongo.fresh import FreshJobs
from jobqueue.mongo.indexes import IDEMPOTENCY_KEY, UNIQUE_KEY
from jobqueue.mongo.store import BY_ID, Store, chunks

WHAT = "store the job"
DUPLICATE_KEY = 11000

LIMITS = BatchLimits(first=100)
"""An idle worker that listens is told of a thousand jobs when the server has gone through a thousand changes, and could
run a hundred of them by then."""

MOST_HOLDERS = 100
"""Of what is there already so many are read at a time: each may be as large as a document can be."""

PATIENCE_MARGIN_SECONDS = 1.0
"""A caller's patience, waiting in line included, is this much longer than that of the batch itself."""

FIELD_NAMES = {"_id": "id"}
FIELD_OF_INDEX = {BY_ID: "_id", IDEMPOTENCY_KEY: "idempotencyKey", UNIQUE_KEY: "uniqueKey"}
KEY_IN_MESSAGE = re.compile(r"^E11000 duplicate key error collection: \S+ index: (\w+)|'keyPattern': \{'(\w+)': 1\}\}$")
"""Where a server sends no `keyPattern`, its message names the index or, at its end, the field. The value between
is the client's: it may look like anything."""

Answer = Job | JobQueueError


class NewDocument(NamedTuple):
    """A job on its way into the collection."""

    job: Job
    document: dict[str, Any]
    encoded: bytes


class Inserts:
    """The verbs that create jobs."""

    def __init__(self, store: Store, fresh: FreshJobs, *, limits: BatchLimits = LIMITS) -> None:
        self._store = store
        self._fresh = fresh
        self._patience = store.client_seconds + PATIENCE_MARGIN_SECONDS
        self._commit = GroupCommit[NewDocument, Answer](self._flush, name="new jobs", limits=limits)

    async def insert_many(self, jobs: Sequence[Job]) -> Sequence[Answer]:
        """Store jobs; one answer for each."""
        prepared = [_prepare(job) for job in jobs]
        new = [each for each in prepared if isinstance(each, NewDocument)]
        sizes = [len(each.encoded) for each in new]
        answers = iter(await self._commit.submit_all(new, sizes, seconds=self._patience))
        return [_as_answer(next(answers), each) if isinstance(each, NewDocument) else each for each in prepared]

    async def aclose(self) -> None:
        """Write what waits."""
        await self._commit.aclose()

    async def _flush(self, batch: Sequence[NewDocument]) -> Sequence[Answer]:
        self._store.observer.wrote_batch("inserts", len(batch))
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._store.client_seconds
        pause, in_doubt = FIRST_PAUSE_SECONDS, False
        while True:
            try:
                return await self._write(batch, seconds=max(0.001, deadline - clock()))
            except PyMongoError as error:
                in_doubt = in_doubt or may_have_happened(error) or isinstance(error, BulkWriteError)
                if clock() + pause >= deadline:
                    return _none_stored(batch, error, in_doubt=in_doubt)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    async def _write(self, batch: Sequence[NewDocument], *, seconds: float) -> Sequence[Answer]:
        try:
            await self._insert_all(batch, seconds=seconds)
        except BulkWriteError as error:
            if error.details.get("writeConcernErrors"):
                raise
            return await self._judge_all(batch, error.details["writeErrors"])
        except OperationFailure as error:
            if error.code not in REFUSED_ITEM_CODES:
                raise
            return await self._find_the_bad_one(batch, error, seconds=seconds)
        self._keep_near(batch)
        return [new.job for new in batch]

    def _keep_near(self, batch: Sequence[NewDocument]) -> None:
        """What was stored beside workers is at hand when they claim it."""
        for new in batch:
            if new.job.status is Status.PENDING and new.job.insert_id and new.job.insert_id.startswith(NEAR):
                self._fresh.keep(new.job.id, new.encoded, size=len(new.encoded))

    async def _insert_all(self, batch: Sequence[NewDocument], *, seconds: float) -> None:
        # enqueue: -> pending or scheduled; the unique indexes are the guard
        encoded = self._store.takes_bytes
        documents = [RawBSONDocument(new.encoded) if encoded else new.document for new in batch]
        await self._store.calls.in_this_task(
            lambda: self._store.jobs.insert_many(documents, ordered=False), seconds=seconds
        )

    async def _find_the_bad_one(
        self, batch: Sequence[NewDocument], error: OperationFailure, *, seconds: float
    ) -> Sequence[Answer]:
        # The server refused the command because of one document in it; halving finds it in a few commands.
        if len(batch) == 1:
            return [_refused(describe(WHAT, error))]
        half = len(batch) // 2
        first = await self._write(batch[:half], seconds=seconds)
        return [*first, *await self._write(batch[half:], seconds=seconds)]

    async def _judge_all(
        self, batch: Sequence[NewDocument], write_errors: Sequence[Mapping[str, Any]]
    ) -> Sequence[Answer]:
        answers: list[Answer] = [new.job for new in batch]
        duplicates: defaultdict[str, list[int]] = defaultdict(list)
        for write_error in write_errors:
            place, code = write_error["index"], write_error.get("code")
            if code == DUPLICATE_KEY:
                duplicates[duplicate_field(write_error)].append(place)
            else:
                detail = f"MongoDB refused the document (code {code})"
                answers[place] = _refused(detail) if code in REFUSED_ITEM_CODES else Unavailable(detail)
        for field, places in duplicates.items():
            found = await self._judge_duplicates(field, [batch[place] for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    async def _judge_duplicates(self, field: str, duplicates: Sequence[NewDocument]) -> Sequence[Answer]:
        holders: dict[str, Job] = {}
        try:
            for some in chunks([new.document[field] for new in duplicates], MOST_HOLDERS):
                holders |= await self._holders(field, some)
        except Unavailable as error:
            # They may be our own documents, from a write whose answer was lost.
            return [OutcomeUnknown(new.job.id, str(error)) for new in duplicates]
        return [_judged(field, new, holders.get(new.document[field])) for new in duplicates]

    async def _holders(self, field: str, values: Sequence[str]) -> Mapping[str, Job]:
        # read: who has these ids or keys
        query = {field: {"$in": list(values)}}
        found = await self._store.calls.run(
            "read the jobs that are there already", lambda: self._store.jobs.find(query).to_list(None)
        )
        return {document[field]: read_or_salvage(document) for document in found}


def _judged(field: str, new: NewDocument, holder: Job | None) -> Answer:
    if holder is not None and holder.insert_id == new.job.insert_id is not None:
        return new.job
    return DuplicateJob(FIELD_NAMES.get(field, field), new.document[field], existing=holder)


def _prepare(job: Job) -> NewDocument | InvalidJob:
    document = to_document(job)
    try:
        return NewDocument(job, document, encode(document))
    except InvalidJob as error:
        return error


def _as_answer(answer: Answer | BaseException, new: NewDocument) -> Answer:
    if isinstance(answer, (Job, JobQueueError)):  # not `|`, which makes a union anew for each
        return answer
    if isinstance(answer, Undelivered) and not answer.sent:
        return Unavailable(f"cannot {WHAT}: too much is waiting to be written")
    reason = "MongoDB did not answer in time" if isinstance(answer, Undelivered) else type(answer).__name__
    return OutcomeUnknown(new.job.id, f"cannot {WHAT}: {reason}")


def duplicate_field(write_error: Mapping[str, Any]) -> str:
    """Which unique field a duplicate key error is about."""
    pattern = write_error.get("keyPattern")
    if pattern:
        return str(next(iter(pattern)))
    named = KEY_IN_MESSAGE.search(str(write_error.get("errmsg", "")))
    name = named.group(1) or named.group(2) if named is not None else "_id"
    return FIELD_OF_INDEX.get(name, name)


def _refused(detail: str) -> InvalidJob:
    return InvalidJob([FieldProblem("", detail)])


def _none_stored(batch: Sequence[NewDocument], error: PyMongoError, *, in_doubt: bool) -> Sequence[Answer]:
    if in_doubt:
        return [OutcomeUnknown(new.job.id, describe(WHAT, error)) for new in batch]
    return [unavailable(WHAT, error) for _ in batch]
