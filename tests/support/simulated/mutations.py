"""Classic bugs of job queues, put back into the real engine one at a time, to see that the simulation finds them.

Each names the rule of `invariants` that is to notice it, within `SEEDS` seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from pymongo import UpdateMany
from simulated.scenario import Profile

from jobqueue import worker
from jobqueue.clock import ServerClock
from jobqueue.contention import Contention
from jobqueue.dispatch import Busy
from jobqueue.errors import Unavailable
from jobqueue.job import LAST_INSTANT, Candidate, Claim, Job, JobId, Lease, Status
from jobqueue.leases import Contact
from jobqueue.mongo import MongoJobRepository, fresh, inserts, moves, sweeps
from jobqueue.mongo.claims import Claims
from jobqueue.mongo.inserts import Inserts, NewDocument
from jobqueue.mongo.leases import MongoLeaseStore
from jobqueue.mongo.moves import Outcome, Statement
from jobqueue.mongo.outcomes import Outcomes, _Sent
from jobqueue.mongo.store import Store
from jobqueue.outcome import Failed, Failure
from jobqueue.poller import Poller
from jobqueue.repository import Claimed, Window
from jobqueue.worker import WorkerPool

SEEDS = 200
"""With its profile the rarest is noticed by about one seed in ten, and others by nearly every one. Each change of the
engine changes which seeds these are."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug, and the rule that is to notice it. `put_in` patches one place and has it mended when the stack
    unwinds; `profile` draws scenarios in which the bug matters."""

    put_in: Callable[[ExitStack], None]
    noticed_by: str
    profile: Profile = Profile()  # noqa: RUF009 (immutable)

    @property
    def name(self) -> str:
        return self.put_in.__name__.replace("_", " ")


def _patch(stack: ExitStack, target: object, name: str, replacement: object) -> None:
    stack.enter_context(mock.patch.object(target, name, replacement))


def completion_is_not_fenced(stack: ExitStack) -> None:
    complete = moves.complete

    def unfenced(claim: Claim, result: Any, *, at: datetime) -> Outcome:
        outcome = complete(claim, result, at=at)
        guard = {"_id": claim.job_id, "status": Status.PROCESSING.value}
        return Outcome(claim, outcome.kind, [Statement(guard, outcome.statements[0].update)], result)

    _patch(stack, moves, "complete", unfenced)


def _patch_rescue(stack: ExitStack, change: Callable[[Statement], Statement]) -> None:
    rescue = moves.rescue
    _patch(stack, moves, "rescue", lambda *args, **kwargs: change(rescue(*args, **kwargs)))


def rescue_does_not_repeat_the_expiry(stack: ExitStack) -> None:
    def change(statement: Statement) -> Statement:
        guard = {path: value for path, value in statement.filter.items() if path != "lease.expiresAt"}
        return Statement(guard, statement.update)

    _patch_rescue(stack, change)


def rescue_writes_last_outcome(stack: ExitStack) -> None:
    def change(statement: Statement) -> Statement:
        mark = {"leaseId": statement.filter["lease.id"], "kind": "complete"}
        update = statement.update | {"$set": statement.update["$set"] | {"lastOutcome": mark}}
        return Statement(statement.filter, update)

    _patch_rescue(stack, change)


def rescue_ignores_the_cancel_flag(stack: ExitStack) -> None:
    def change(statement: Statement) -> Statement:
        guard = {path: value for path, value in statement.filter.items() if path != moves.FLAG}
        return Statement(guard, statement.update)

    target = sweeps._target

    def without_the_flag(document: Mapping[str, Any]) -> Status:
        return target({name: value for name, value in document.items() if name != moves.FLAG})

    _patch_rescue(stack, change)
    _patch(stack, sweeps, "_target", without_the_flag)


def rescue_forgets_the_limit_of_attempts(stack: ExitStack) -> None:
    _patch(stack, sweeps, "_target", lambda document: Status.PENDING)


def batches_match_ids_and_leases_apart(stack: ExitStack) -> None:
    """Two defences stand before this one, so both are taken away: outcomes of several leases are one statement,
    and a job may be claimed again while an earlier attempt at it still runs in the same process."""

    def likeness(self: Outcomes, outcome: Outcome, place: int) -> object:
        return outcome.kind if outcome.kind == "complete" else place

    def statements(self: Outcomes, batch: Sequence[Outcome], places: Sequence[int]) -> Sequence[_Sent]:
        last = batch[places[-1]]
        ids = [batch[place].claim.job_id for place in places]
        leases = [batch[place].claim.lease_id for place in places]
        one = Statement({"_id": {"$in": ids}, "lease.id": {"$in": leases}}, last.statements[0].update)
        return [_Sent(UpdateMany(one.filter, one.update), places, one)]

    separately = Outcomes._statements

    def planned(self: Outcomes, batch: Sequence[Outcome], places: Sequence[int]) -> Sequence[_Sent]:
        return (separately if len(places) == 1 else statements)(self, batch, places)

    _patch(stack, Outcomes, "_likeness", likeness)
    _patch(stack, Outcomes, "_statements", planned)
    a_running_job_is_claimed_again(stack)


def a_running_job_is_claimed_again(stack: ExitStack) -> None:
    begin = WorkerPool._begin_claim

    def forgetful(self: WorkerPool, candidates: Sequence[Candidate]) -> None:
        begin(self, candidates)
        self._busy._ids.clear()

    _patch(stack, WorkerPool, "_begin_claim", forgetful)


def release_does_not_give_the_attempt_back(stack: ExitStack) -> None:
    _patch(stack, moves, "give_back", dict)


def attempt_number_comes_from_the_candidate(stack: ExitStack) -> None:
    """It is what the job had when it was looked at, plus one."""
    candidates, claim = MongoJobRepository.candidates, MongoJobRepository.claim
    seen: dict[str, int] = {}

    async def looking(self: MongoJobRepository, *args: Any, **kwargs: Any) -> Window:
        window = await candidates(self, *args, **kwargs)
        for found in await self._store.jobs.find({"status": "pending"}, {"retryCount": 1}).to_list(None):
            seen.setdefault(found["_id"], found["retryCount"])
        return window

    async def claiming(self: MongoJobRepository, *args: Any, **kwargs: Any) -> Claimed:
        won = await claim(self, *args, **kwargs)
        jobs = [job.model_copy(update={"retry_count": seen.get(job.id, job.retry_count - 1) + 1}) for job in won.jobs]
        return Claimed(jobs, won.unreadable)

    _patch(stack, MongoJobRepository, "candidates", looking)
    _patch(stack, MongoJobRepository, "claim", claiming)


def more_is_claimed_than_slots_are_free(stack: ExitStack) -> None:
    _patch(stack, WorkerPool, "_free_slots", lambda self: self._options.slots - self._executor.slots_taken)


def a_slot_is_free_between_claim_and_start(stack: ExitStack) -> None:
    """Found by this simulation in the engine itself."""
    start, run = WorkerPool._start, WorkerPool._run

    def starting(self: WorkerPool, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        self._reserved -= 1

    async def running(self: WorkerPool, *args: Any) -> None:
        self._reserved += 1
        await run(self, *args)

    _patch(stack, WorkerPool, "_start", starting)
    _patch(stack, WorkerPool, "_run", running)


def a_claim_answered_too_late_is_begun(stack: ExitStack) -> None:
    """Found by this simulation in the engine itself."""
    _patch(stack, worker, "LEAST_OF_LEASE", -0.01)


def a_lost_answer_is_a_failed_attempt(stack: ExitStack) -> None:
    record = WorkerPool._record

    async def hasty(self: WorkerPool, attempt: Any, ending: Any) -> None:
        try:
            await record(self, attempt, ending)
        except Unavailable:
            await record(self, attempt, Failed(Failure("Unavailable", "the outcome could not be written")))

    _patch(stack, WorkerPool, "_record", hasty)


def a_lost_answer_is_a_refused_job(stack: ExitStack) -> None:
    _patch(stack, inserts, "may_have_happened", lambda error: False)


def heartbeats_go_by_worker(stack: ExitStack) -> None:
    def renewals(self: Any, job_ids: Sequence[JobId], lease_id: str, expires_at: datetime) -> Sequence[UpdateMany]:
        query = {"status": "processing", "lease.workerId": self._jobs.process}
        return [UpdateMany(query, moves.renew(expires_at))]

    _patch(stack, MongoLeaseStore, "_renewals", renewals)


def the_reaper_acts_right_after_an_outage(stack: ExitStack) -> None:
    _patch(stack, Contact, "steady_seconds", lambda self, monotonic: float("inf"))


def a_job_leaves_the_heartbeat_before_its_outcome_is_acknowledged(stack: ExitStack) -> None:
    report = WorkerPool._report

    async def early(self: WorkerPool, attempt: Any, ending: Any) -> bool:
        self._keeper.remove(attempt.claim)
        return await report(self, attempt, ending)

    _patch(stack, WorkerPool, "_report", early)


def redrive_leaves_finished_at(stack: ExitStack) -> None:
    redrive = moves.redrive

    def forgetful(*, at: datetime) -> moves.Update:
        update = redrive(at=at)
        gone = {name: value for name, value in update["$unset"].items() if name != "finishedAt"}
        return update | {"$unset": gone}

    _patch(stack, moves, "redrive", forgetful)


def a_batch_error_is_blamed_on_the_next_item(stack: ExitStack) -> None:
    judge = Inserts._judge_all

    async def shifted(
        self: Inserts, batch: Sequence[NewDocument], write_errors: Sequence[Mapping[str, Any]]
    ) -> Sequence[Any]:
        answers = list(await judge(self, batch, write_errors))
        return [*answers[-1:], *answers[:-1]]

    _patch(stack, Inserts, "_judge_all", shifted)


def time_is_that_of_the_machine(stack: ExitStack) -> None:
    def uncorrected(self: ServerClock, offset: timedelta) -> bool:
        self._measured = self.local_now(), self.monotonic()
        return False

    _patch(stack, ServerClock, "correct", uncorrected)
    _nobody_asks_the_server_for_its_time(stack)


def others_are_judged_by_a_clock_that_cannot_go_back(stack: ExitStack) -> None:
    """Found by this simulation in the engine itself."""
    _patch(stack, ServerClock, "surely_past", ServerClock.now)
    _nobody_asks_the_server_for_its_time(stack)


def _nobody_asks_the_server_for_its_time(stack: ExitStack) -> None:
    """Before a lease is taken away, which alone would prevent most of the harm."""

    async def far_away(self: Store) -> datetime:
        return LAST_INSTANT

    _patch(stack, Store, "server_time", far_away)


def a_share_passes_over_what_is_more_urgent(stack: ExitStack) -> None:
    """Found by this simulation in the engine itself."""

    def share(self: Contention, window: Window, *, busy: object) -> Window:
        if self.shares == 1:
            return window
        mine = [candidate for candidate in window.candidates if self._is_mine(candidate)]
        return Window([*mine, window.candidates[-1]], complete=False)

    _patch(stack, Contention, "share", share)


def queues_that_are_new_after_an_outage_are_passed_over(stack: ExitStack) -> None:
    """Found by this simulation in the engine itself."""
    _patch(stack, Poller, "_must_learn_of_queues", lambda self: not self._queues)


def what_is_given_back_or_taken_away_during_a_look_is_passed_over(stack: ExitStack) -> None:
    """Found by this simulation in the engine itself. What is given back is offered, too; this is taken away as well."""
    leave = Busy.leave

    def finished(self: Busy, job: Job) -> None:
        self.finish([job])
        leave(self, job)

    _patch(stack, Busy, "leave", finished)
    _patch(stack, WorkerPool, "_wait_again", lambda self, job: None)


def promotion_does_not_look_at_the_state(stack: ExitStack) -> None:
    """What a client cancelled in the meantime comes to life again."""

    async def blind(self: sweeps.Sweeps, ids: Sequence[Any], *, now: datetime) -> None:
        query = {"_id": {"$in": list(ids)}}
        await self._store.calls.run("promote", lambda: self._store.jobs.update_many(query, moves.promote(at=now)))

    _patch(stack, sweeps.Sweeps, "_promote", blind)


def what_was_stored_a_moment_ago_is_taken_for_won(stack: ExitStack) -> None:
    async def credulous(self: Claims, jobs: Sequence[Job], lease: Lease, *, at: datetime) -> Claimed:
        await self._update_fresh(jobs, lease, at=at)
        return Claimed([moves.claimed(job, lease, at=at) for job in jobs])

    _patch(stack, Claims, "_claim_fresh", credulous)


def what_was_stored_long_ago_is_taken_for_new(stack: ExitStack) -> None:
    """It may have been tried since: both defences are taken away, its age and the count in the filter."""

    async def uncounted(self: Claims, jobs: Sequence[Job], lease: Lease, *, at: datetime) -> int:
        query = {"_id": {"$in": [job.id for job in jobs]}, "status": Status.PENDING.value}
        result = await self._store.jobs.update_many(query, moves.claim(lease, at=at))
        return int(result.matched_count)

    _patch(stack, Claims, "_update_fresh", uncounted)
    _patch(stack, fresh, "BELIEVED_SECONDS", 1e9)


ZOMBIES = Profile(
    faults=("freeze", "silent heartbeat", "silent heartbeat", "partition of leases"),
    most_faults=24,
    fault_seconds=(1.5, 2.0),
    trouble=(10.0, 15.0),
    durations=((0.0, 0.1), (1.0, 4.0), (1.5, 3.0)),
    call_faults=(0.0,),
    jobs=(20, 30),
    leases=(5.0,),
)
"""Owners fall silent for longer than a lease, again and again."""

SLOW_ZOMBIES = replace(ZOMBIES, latencies=(0.1, 0.2))
"""The same, with time for others between a look and the write that follows it. Not slower: with a mean of 0.3 s each
way one call in forty of the lease thread takes longer than its patience, and owners without any trouble lose leases."""

OUTAGES = replace(
    ZOMBIES, faults=("outage",), fault_seconds=(1.5,), trouble=(20.0, 25.0), durations=((3.0, 6.0),), jobs=(15, 20)
)
"""Longer than a lease, and attempts that go on all the while."""

SHORT_OUTAGES = replace(
    ZOMBIES,
    faults=("outage",),
    fault_seconds=(0.9, 1.2),
    latencies=(0.1, 0.2),
    durations=((0.0, 0.1),),
    jobs=(50, 60),
)
"""Over before a claim is given up, so that it is answered too late; with time for that during a look."""

CHANGES_OF_PRIMARY = Profile(
    faults=("stepdown", "stepdown", "kill", "rolling restart"), call_faults=(0.0,), jobs=(30, 50), leases=(5.0,)
)
CANCELLATIONS = Profile(faults=("kill", "kill", "partition"), requests=(40, 60))
"""Of jobs whose owners cannot hear of it any more."""

LOST_ANSWERS = Profile(
    most_faults=0, call_faults=(0.15,), durations=((0.0, 0.1), (1.0, 2.0)), jobs=(60, 80), leases=(5.0,)
)
LATE_ANSWERS = replace(LOST_ANSWERS, call_faults=(0.1,), durations=((0.0, 0.0), (0.0, 0.1)))
"""Nothing else goes wrong, so that the reapers have the contact that they need."""

CROWDED = Profile(faults=("freeze",), most_faults=2, call_faults=(0.0,), jobs=(60, 80), leases=(5.0,))
NEW_QUEUES = Profile(
    faults=("partition of calls", "freeze"),
    most_faults=16,
    jobs=(60, 80),
    queues=tuple(f"queue-{number}" for number in range(100)),
    flavours=("standalone",),
)
"""Nobody is told of a queue, so each is met by a look."""

SHAPE = "a document is out of shape"
ROBBED = "a lease was taken from an owner that was well"
TOO_EARLY = "a lease was taken before it expired"
NOT_OWNED = "an outcome was written without the lease"
UNTRUE = "a client was told what is not true"
PASSED_OVER = "a job of a higher priority was passed over"
MISCOUNTED = "retryCount is wrong"
OVERCLAIMED = "more was claimed than slots were free"
MISREPORTED = "an attempt was reported otherwise than it ended"

MUTATIONS = [
    Mutation(completion_is_not_fenced, NOT_OWNED, ZOMBIES),
    Mutation(rescue_does_not_repeat_the_expiry, TOO_EARLY, SLOW_ZOMBIES),
    Mutation(rescue_writes_last_outcome, NOT_OWNED),
    Mutation(rescue_ignores_the_cancel_flag, SHAPE, CANCELLATIONS),
    Mutation(rescue_forgets_the_limit_of_attempts, SHAPE),
    Mutation(batches_match_ids_and_leases_apart, NOT_OWNED, ZOMBIES),
    Mutation(a_running_job_is_claimed_again, "an attempt was begun beside an earlier one", ZOMBIES),
    Mutation(release_does_not_give_the_attempt_back, MISCOUNTED),
    Mutation(attempt_number_comes_from_the_candidate, "an attempt has the wrong number or process"),
    Mutation(more_is_claimed_than_slots_are_free, OVERCLAIMED),
    Mutation(a_slot_is_free_between_claim_and_start, OVERCLAIMED),
    Mutation(a_claim_answered_too_late_is_begun, ROBBED, LATE_ANSWERS),
    Mutation(a_lost_answer_is_a_failed_attempt, MISREPORTED),
    Mutation(a_lost_answer_is_a_refused_job, UNTRUE, LOST_ANSWERS),
    Mutation(heartbeats_go_by_worker, "a lease was renewed that nobody runs", LOST_ANSWERS),
    Mutation(the_reaper_acts_right_after_an_outage, ROBBED, OUTAGES),
    Mutation(a_job_leaves_the_heartbeat_before_its_outcome_is_acknowledged, ROBBED),
    Mutation(redrive_leaves_finished_at, SHAPE),
    Mutation(a_batch_error_is_blamed_on_the_next_item, UNTRUE),
    Mutation(time_is_that_of_the_machine, TOO_EARLY),
    Mutation(others_are_judged_by_a_clock_that_cannot_go_back, TOO_EARLY, CHANGES_OF_PRIMARY),
    Mutation(a_share_passes_over_what_is_more_urgent, PASSED_OVER, CROWDED),
    Mutation(queues_that_are_new_after_an_outage_are_passed_over, PASSED_OVER, NEW_QUEUES),
    Mutation(what_is_given_back_or_taken_away_during_a_look_is_passed_over, PASSED_OVER, SHORT_OUTAGES),
    Mutation(promotion_does_not_look_at_the_state, SHAPE),
    Mutation(what_was_stored_a_moment_ago_is_taken_for_won, "an attempt was begun without a claim"),
    Mutation(what_was_stored_long_ago_is_taken_for_new, "an attempt has the wrong number or process"),
]
