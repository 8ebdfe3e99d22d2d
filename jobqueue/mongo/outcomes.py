"""How attempts end: complete, retry, fail, snooze, release, abandon, quarantine; written by group commit.

Each write is conditional on one `(id, lease id)` pair. Completions of one lease share an `update_many`, whether or
not they have results; never one filter with several leases, which would not be a set of pairs. A bulk write tells
only how many matched; when that is fewer than were sent, one read tells each caller: written by this very outcome
(same lease *and* same kind), or lost. A job that is gone is reported as lost too: whether it was completed here
and pruned since cannot be told. When the server refuses a shared statement, each of its outcomes is written by
itself, so that only the one it cannot take is refused.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError

from jobqueue.batching import BatchLimits, GroupCommit
from jobqueue.errors import InvalidJob, JobQueueError, LeaseLost, OutcomeUnknown, Unavailable
from jobqueue.mongo import moves
from jobqueue.mongo.calls import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, describe
from jobqueue.mongo.documents import encode, lease_id_in
from jobqueue.mongo.moves import MergedStatement, Statement, last_outcome, merged, without_history
from jobqueue.mongo.store import Store, chunks

WHAT = "write the outcome"
MERGED_KINDS = frozenset({"complete", "abandon"})
"""Kinds that are one statement, differing only in their result and by some milliseconds in their times."""

MOST_RESULTS = 100
"""In one statement: the server looks up each document's id among all of them."""

OUTCOME_BYTES = 256
"""About the size of an outcome that holds nothing of the task's."""

Outcome = moves.Outcome | moves.Completion
Answer = JobQueueError | None
Write = UpdateOne | UpdateMany


@dataclass(frozen=True, slots=True)
class _Sent:
    """One statement of a bulk write, and the outcomes (by their place in the batch) that it stands for."""

    write: Write
    places: Sequence[int]
    statement: Statement | MergedStatement


class Outcomes:
    """The verbs that end an attempt."""

    def __init__(self, store: Store, *, limits: BatchLimits = BatchLimits()) -> None:  # noqa: B008 (immutable)
        self._store = store
        self._commit = GroupCommit[Outcome, Answer](self._flush, name="outcomes", limits=limits)

    async def write(self, outcome: Outcome) -> None:
        """Return when the outcome is written. Raises `LeaseLost`, `OutcomeUnknown` (repeating is safe),
        `InvalidJob` (the result cannot be stored), `QueueFull`."""
        await self._commit.submit(outcome, size=_size(outcome))

    async def write_all(self, outcomes: Sequence[Outcome]) -> Sequence[BaseException | None]:
        """The same for many, which one caller waits for. What `write` would raise is an answer here."""
        try:
            sizes = [_size(outcome) for outcome in outcomes]
        except InvalidJob:
            return await asyncio.gather(*(self.write(outcome) for outcome in outcomes), return_exceptions=True)
        return await self._commit.submit_all(outcomes, sizes)

    async def aclose(self) -> None:
        """Write what waits."""
        await self._commit.aclose()

    async def _flush(self, batch: Sequence[Outcome]) -> Sequence[Answer]:
        self._store.observer.wrote_batch("outcomes", len(batch))
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._store.client_seconds
        answers: dict[int, Answer] = {}
        open_places = list(range(len(batch)))
        pause, reason = FIRST_PAUSE_SECONDS, f"cannot {WHAT}: MongoDB did not answer in time"
        while open_places and clock() < deadline:
            try:
                answers |= await self._attempt(batch, open_places, seconds=deadline - clock())
            except PyMongoError as error:
                # Whether or not it happened: write it again first, and only then look.
                reason = describe(WHAT, error)
            open_places = [place for place in open_places if place not in answers]
            if open_places:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE_SECONDS)
        for place in open_places:
            answers[place] = OutcomeUnknown(batch[place].claim.job_id, reason)
        return [answers[place] for place in range(len(batch))]

    async def _attempt(self, batch: Sequence[Outcome], places: Sequence[int], *, seconds: float) -> dict[int, Answer]:
        """Answers for those that are settled now; the others are to be written again."""
        matched, refused = await self._send(batch, self._plan(batch, places), seconds=seconds)
        if matched == len(places):
            return dict.fromkeys(places)
        outcomes = {place: batch[place] for place in places if place not in refused}
        return refused | await self._look(outcomes, seconds=seconds)

    def _plan(self, batch: Sequence[Outcome], places: Sequence[int]) -> Sequence[_Sent]:
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place in places:
            groups[self._likeness(batch[place], place)].append(place)
        return [sent for group in groups.values() for sent in self._statements(batch, group)]

    def _likeness(self, outcome: Outcome, place: int) -> Hashable:
        features = self._store.features
        # In a sharded cluster a multi-update may apply twice or not at all while data moves.
        if outcome.kind not in MERGED_KINDS or features.sharded:
            return place
        if outcome.result is not None and not features.pipeline_updates:
            return place
        return outcome.claim.lease_id, outcome.kind, outcome.result is None

    def _statements(self, batch: Sequence[Outcome], places: Sequence[int]) -> Sequence[_Sent]:
        if len(places) == 1:
            return self._apart(batch, places[0])
        most = len(places) if batch[places[0]].result is None else MOST_RESULTS
        return [self._together(batch, run) for run in chunks(places, most)]

    def _apart(self, batch: Sequence[Outcome], place: int) -> Sequence[_Sent]:
        return [self._single(statement, place) for statement in batch[place].statements]

    def _single(self, one: Statement, place: int) -> _Sent:
        return _Sent(UpdateOne(one.filter, one.update, hint=self._store.by_id.get("hint")), [place], one)

    def _together(self, batch: Sequence[Outcome], places: Sequence[int]) -> _Sent:
        one = merged([batch[place] for place in places])
        return _Sent(UpdateMany(one.filter, one.update, hint=self._store.by_id.get("hint")), places, one)

    async def _send(
        self, batch: Sequence[Outcome], sent: Sequence[_Sent], *, seconds: float
    ) -> tuple[int, dict[int, Answer]]:
        """How many matched (-1 where that is not known), and answers for what the server cannot take."""
        try:
            return await self._write([one.write for one in sent], seconds=seconds), {}
        except BulkWriteError as error:
            if error.details.get("writeConcernErrors"):
                raise
            failed = [(sent[one["index"]], one.get("code")) for one in error.details["writeErrors"]]
        refused: dict[int, Answer] = {}
        for one, code in failed:
            refused |= await self._mend(batch, one, code, seconds=seconds)
        return -1, refused

    async def _write(self, writes: Sequence[Write], *, seconds: float) -> int:
        # processing -> whatever the outcomes say, each only by the lease that claimed it
        result = await self._store.calls.attempt(
            lambda: self._store.jobs.bulk_write(list(writes), ordered=False), seconds=seconds
        )
        return int(result.matched_count)

    async def _mend(
        self, batch: Sequence[Outcome], one: _Sent, code: int | None, *, seconds: float
    ) -> dict[int, Answer]:
        """Write what is left of a statement that was refused; answers for what cannot be written even so."""
        if isinstance(one.statement, MergedStatement):
            apart = [single for place in one.places for single in self._apart(batch, place)]
            return (await self._send(batch, apart, seconds=seconds))[1]
        if "$push" in one.statement.update:
            # A document whose `errors` is no list (made by hand) gets a new one.
            anew = Statement(one.statement.filter, without_history(one.statement.update))
            return (await self._send(batch, [self._single(anew, one.places[0])], seconds=seconds))[1]
        return dict.fromkeys(one.places, Unavailable(f"cannot {WHAT}: MongoDB refused (code {code})"))

    async def _look(self, outcomes: Mapping[int, Outcome], *, seconds: float) -> dict[int, Answer]:
        found = await self._read([outcome.claim.job_id for outcome in outcomes.values()], seconds=seconds)
        answers: dict[int, Answer] = {}
        for place, outcome in outcomes.items():
            document = found.get(outcome.claim.job_id, {})
            if _wrote(document, outcome):
                answers[place] = None
            elif lease_id_in(document) != outcome.claim.lease_id:
                answers[place] = LeaseLost(outcome.claim.job_id, outcome.claim.lease_id)
            # Still ours and not written: a cancel came between the two statements. The next attempt settles it.
        return answers

    async def _read(self, job_ids: Sequence[str], *, seconds: float) -> Mapping[str, Mapping[str, Any]]:
        # read by id: who owns these jobs, and who wrote their last outcome
        query, fields = {"_id": {"$in": list(job_ids)}}, {"lease.id": 1, "lastOutcome": 1}
        found = await self._store.calls.attempt(
            lambda: self._store.jobs.find(query, fields, batch_size=len(job_ids) + 1, **self._store.by_id).to_list(
                None
            ),
            seconds=seconds,
        )
        return {document["_id"]: document for document in found}


def _size(outcome: Outcome) -> int:
    # What is ours alone need not be encoded to know that it can be.
    if outcome.kind in MERGED_KINDS:
        return OUTCOME_BYTES if outcome.result is None else OUTCOME_BYTES + len(encode({"result": outcome.result}))
    return sum(len(encode(statement.update)) for statement in outcome.statements)


def _wrote(document: Mapping[str, Any], outcome: Outcome) -> bool:
    last = document.get("lastOutcome")
    return last == last_outcome(outcome.claim.lease_id, outcome.kind)
