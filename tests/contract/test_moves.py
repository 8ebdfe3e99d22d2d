"""Every verb against every state: legal moves do what `job.MOVES` says, illegal ones change nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from bench import BOOM, LEASE, NOW, SECOND, Bench

from jobqueue.errors import IllegalMove, LeaseLost
from jobqueue.job import FINISHED, MOVES, Claim, LeaseId, Status
from jobqueue.mongo import moves

Verb = Callable[[Bench, Claim], Awaitable[object]]

VERBS: dict[str, Verb] = {
    "promote": lambda bench, _: bench.jobs.promote(now=NOW, limit=100),
    "claim": lambda bench, claim: bench.jobs.claim([claim.job_id], bench.lease(), at=NOW),
    "complete": lambda bench, claim: bench.jobs.complete(claim, {"sum": 3}, at=NOW),
    "retry": lambda bench, claim: bench.jobs.retry(claim, BOOM, run_at=NOW + SECOND, at=NOW),
    "fail": lambda bench, claim: bench.jobs.fail(claim, BOOM, at=NOW),
    "snooze": lambda bench, claim: bench.jobs.snooze(claim, until=NOW + SECOND, at=NOW),
    "release": lambda bench, claim: bench.jobs.release(claim, at=NOW),
    "abandon": lambda bench, claim: bench.jobs.abandon(claim, at=NOW),
    "rescue": lambda bench, _: bench.jobs.rescue(cutoff=NOW + 2 * LEASE, at=NOW, limit=100),
    "cancel": lambda bench, claim: bench.jobs.cancel(claim.job_id, at=NOW),
    "redrive": lambda bench, claim: bench.jobs.redrive(claim.job_id, at=NOW),
}
BY_LEASE = {"complete", "retry", "fail", "snooze", "release", "abandon"}
GIVES_BACK = {"snooze", "release"}
ASKED_BY_CLIENTS = {"cancel", "redrive"}


def test_every_move_has_its_verb() -> None:
    assert VERBS.keys() == MOVES.keys()


@pytest.mark.parametrize("name", VERBS)
async def test_a_verb_moves_what_it_may_and_leaves_the_rest_alone(bench: Bench, name: str) -> None:
    for status in Status:
        claim = await bench.in_status(status)
        before = await bench.stored(claim.job_id)

        refusal = None
        try:
            await VERBS[name](bench, claim)
        except (LeaseLost, IllegalMove) as error:
            refusal = type(error)

        after = await bench.stored(claim.job_id)
        if status in MOVES[name].sources:
            assert after["status"] in MOVES[name].targets
            assert refusal is None
        elif (name, status) == ("cancel", Status.PROCESSING):
            assert after == {**before, "cancelRequestedAt": NOW}
        else:
            assert after == before
            assert refusal == (LeaseLost if name in BY_LEASE else IllegalMove if name in ASKED_BY_CLIENTS else None)
        await bench.raw.delete_one({"_id": claim.job_id})


@pytest.mark.parametrize("name", ["retry", "snooze", "release", "rescue"])
async def test_a_running_job_that_was_asked_to_stop_is_cancelled_by_whoever_takes_it_back(
    bench: Bench, name: str
) -> None:
    claim = await bench.in_status(Status.PROCESSING, cancelRequestedAt=NOW)

    await VERBS[name](bench, claim)

    job = await bench.jobs.get(claim.job_id)
    assert job.status is Status.CANCELLED
    assert job.finished_at == NOW
    assert job.lease is None
    assert job.retry_count == (0 if name in GIVES_BACK else 1)
    assert len(job.errors or ()) == (0 if name in GIVES_BACK else 1)


@pytest.mark.parametrize("name", sorted(MOVES))
async def test_every_move_says_when_the_job_changed(bench: Bench, name: str) -> None:
    """Whoever follows a job is told of it again when its state or this time is another."""
    for source in MOVES[name].sources:
        claim = await bench.in_status(source, updatedAt=NOW - SECOND)

        await VERBS[name](bench, claim)

        assert (await bench.stored(claim.job_id))["updatedAt"] == NOW
        await bench.raw.delete_one({"_id": claim.job_id})


async def test_asking_a_running_job_to_stop_says_when_it_changed(bench: Bench) -> None:
    claim = await bench.in_status(Status.PROCESSING, updatedAt=NOW - SECOND)

    await bench.jobs.cancel(claim.job_id, at=NOW)

    assert (await bench.stored(claim.job_id))["updatedAt"] == NOW


@pytest.mark.parametrize("asked", [False, True])
async def test_of_the_two_statements_of_a_move_one_matches_in_whichever_order_they_come(
    bench: Bench, asked: bool
) -> None:
    claim = await bench.in_status(Status.PROCESSING, **({"cancelRequestedAt": NOW} if asked else {}))
    pairs = [
        moves.retry(claim, BOOM, run_at=NOW, at=NOW).statements,
        moves.snooze(claim, until=NOW, at=NOW).statements,
        moves.release(claim, at=NOW).statements,
        moves.release_orphan(claim, at=NOW),
    ]

    matched = [[await bench.raw.count_documents(one.filter) for one in pair] for pair in pairs]

    assert matched == [[not asked, asked]] * len(pairs)


@pytest.mark.parametrize("name", sorted(BY_LEASE))
async def test_the_writes_of_a_lost_lease_change_nothing_and_say_so(bench: Bench, name: str) -> None:
    claim = await bench.in_status(Status.PROCESSING)
    before = await bench.stored(claim.job_id)

    with pytest.raises(LeaseLost):
        await VERBS[name](bench, claim._replace(lease_id=LeaseId("another")))

    assert await bench.stored(claim.job_id) == before


@pytest.mark.parametrize("name", sorted(BY_LEASE))
async def test_an_outcome_may_be_repeated_but_no_other_may_follow(bench: Bench, name: str) -> None:
    claim = await bench.in_status(Status.PROCESSING)
    await VERBS[name](bench, claim)
    before = await bench.stored(claim.job_id)

    await VERBS[name](bench, claim)
    for other in sorted(BY_LEASE - {name}):
        with pytest.raises(LeaseLost):
            await VERBS[other](bench, claim)

    assert await bench.stored(claim.job_id) == before


@pytest.mark.parametrize("name", sorted(MOVES))
async def test_a_job_that_is_not_running_has_no_lease_and_one_that_is_finished_says_since_when(
    bench: Bench, name: str
) -> None:
    for source in MOVES[name].sources:
        claim = await bench.in_status(source)

        await VERBS[name](bench, claim)

        after = await bench.stored(claim.job_id)
        assert ("lease" in after) == (after["status"] == "processing")
        assert ("finishedAt" in after) == (after["status"] in FINISHED)
        assert None not in {
            value for field, value in after.items() if field != "payload" and not isinstance(value, dict | list)
        }
        await bench.raw.delete_one({"_id": claim.job_id})


async def test_snooze_and_release_give_the_attempt_back(bench: Bench) -> None:
    snoozed, released = await bench.running(), await bench.running()

    await bench.jobs.snooze(snoozed, until=NOW + timedelta(hours=1), at=NOW)
    await bench.jobs.release(released, at=NOW)

    assert [(await bench.jobs.get(claim.job_id)).retry_count for claim in (snoozed, released)] == [0, 0]
    assert (await bench.jobs.get(snoozed.job_id)).run_at == NOW + timedelta(hours=1)


async def test_redrive_makes_a_job_as_if_new_and_keeps_its_errors(bench: Bench) -> None:
    claim = await bench.running(max_retries=1)
    await bench.jobs.fail(claim, BOOM, at=NOW)

    job = await bench.jobs.redrive(claim.job_id, at=NOW + SECOND)

    assert (job.status, job.retry_count, job.redrives, job.run_at) == (Status.PENDING, 0, 1, NOW + SECOND)
    assert (job.finished_at, job.started_at, job.last_outcome, job.result) == (None, None, None, None)
    assert job.errors == [BOOM]


async def test_redrive_takes_away_what_was_left_of_an_attempt(bench: Bench) -> None:
    """A lease too, which only a person can have left there."""
    left = {"progress": {"percent": 5}, "lease": {"id": "L", "workerId": "w", "expiresAt": NOW}}
    claim = await bench.in_status(Status.FAILED, **left)

    await bench.jobs.redrive(claim.job_id, at=NOW)

    assert not left.keys() & (await bench.stored(claim.job_id)).keys()


async def test_a_redriven_job_is_not_asked_to_stop_any_more(bench: Bench) -> None:
    claim = await bench.running()
    await bench.jobs.cancel(claim.job_id, at=NOW)
    await bench.jobs.abandon(claim, at=NOW)

    job = await bench.jobs.redrive(claim.job_id, at=NOW)

    assert job.cancel_requested_at is None


async def test_a_pruner_never_deletes_a_redriven_job(bench: Bench) -> None:
    claim = await bench.in_status(Status.FAILED)

    async def redrive() -> None:
        await bench.jobs.redrive(claim.job_id, at=NOW)

    bench.faults.meanwhile("delete_many", redrive)
    assert await bench.jobs.prune(Status.FAILED, finished_before=NOW + SECOND, limit=10) == 0

    assert await bench.status(claim.job_id) is Status.PENDING


async def test_cancelling_a_running_job_twice_asks_it_once(bench: Bench) -> None:
    claim = await bench.running()
    first = await bench.jobs.cancel(claim.job_id, at=NOW)

    second = await bench.jobs.cancel(claim.job_id, at=NOW + SECOND)

    assert first == second
    assert second.cancel_requested_at == NOW


async def test_a_cancel_that_comes_while_a_retry_is_written_is_not_lost(bench: Bench) -> None:
    """The flag is in the guard of both statements: whichever way they interleave, one of them matches."""
    claim = await bench.running()

    async def cancel() -> None:
        with contextlib.suppress(IllegalMove):
            await bench.jobs.cancel(claim.job_id, at=NOW)

    bench.faults.meanwhile("bulk_write", cancel)
    await bench.jobs.retry(claim, BOOM, run_at=NOW, at=NOW)

    assert await bench.status(claim.job_id) is Status.CANCELLED


async def test_delete_removes_what_does_not_run(bench: Bench) -> None:
    for status in Status:
        claim = await bench.in_status(status)
        if status is Status.PROCESSING:
            with pytest.raises(IllegalMove):
                await bench.jobs.delete(claim.job_id)
        else:
            await bench.jobs.delete(claim.job_id)
        assert (await bench.raw.find_one({"_id": claim.job_id}) is not None) == (status is Status.PROCESSING)
