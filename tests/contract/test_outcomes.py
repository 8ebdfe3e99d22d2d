"""How attempts end: written once by their owner, recognised when repeated, refused to everybody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from bench import BOOM, LEASE, NOW, SECOND, Bench
from faults import GIVES_UP_SOON, LOST, NO_MAJORITY

from jobqueue.errors import InvalidJob, LeaseLost, OutcomeUnknown, Unavailable
from jobqueue.job import MAX_ERRORS, Claim, JobId, JsonValue, Progress, Status
from jobqueue.mongo import outcomes
from jobqueue.mongo.outcomes import MOST_RESULTS


async def test_a_late_worker_cannot_complete_a_reclaimed_job(bench: Bench) -> None:
    zombie = await bench.running()
    await bench.jobs.rescue(cutoff=NOW + 2 * LEASE, at=NOW, limit=10)
    (owner,) = await bench.claim(await bench.jobs.get(zombie.job_id))

    with pytest.raises(LeaseLost):
        await bench.jobs.complete(zombie, "mine", at=NOW)
    await bench.jobs.complete(owner, "its", at=NOW)
    with pytest.raises(LeaseLost):
        await bench.jobs.complete(zombie, "mine", at=NOW)

    job = await bench.jobs.get(zombie.job_id)
    assert (job.result, job.retry_count) == ("its", 2)


async def test_leases_in_one_batch_are_pairs_not_sets(bench: Bench) -> None:
    """Job a is rescued from lease 1 and claimed again, with job c, under lease 2; lease 1 still owns job b. The
    old attempt at a must not end under lease 2, though lease 2 is in the same batch."""
    a, b, c = await bench.add_many(3)
    old, neighbour = await bench.claim(a, b)
    await bench.expire(old)
    await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)
    again, other = await bench.claim(await bench.jobs.get(a.id), c)

    answers = await asyncio.gather(
        *(bench.jobs.complete(claim, None, at=NOW) for claim in (old, neighbour, other)), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [LeaseLost, type(None), type(None)]
    lease = (await bench.jobs.get(a.id)).lease
    assert lease is not None
    assert lease.id == again.lease_id


async def test_outcomes_written_at_once_share_a_statement_where_they_are_alike(bench: Bench) -> None:
    claims = await bench.claim(*await bench.add_many(30))
    bench.faults.calls.clear()

    await asyncio.gather(
        *(bench.jobs.complete(claim, None, at=NOW) for claim in claims[:10]),
        *(bench.jobs.complete(claim, {"n": number}, at=NOW) for number, claim in enumerate(claims[10:20])),
        *(bench.jobs.fail(claim, BOOM, at=NOW) for claim in claims[20:]),
    )

    assert bench.faults.calls == ["bulk_write"]
    assert [(await bench.jobs.get(claim.job_id)).result for claim in claims[:20]] == [
        *[None] * 10,
        *({"n": number} for number in range(10)),
    ]
    assert await bench.raw.count_documents({"status": "failed"}) == 10


async def test_outcomes_that_share_a_statement_ended_when_the_last_of_them_did(bench: Bench) -> None:
    claims = await bench.claim(*await bench.add_many(2))

    await asyncio.gather(
        *(bench.jobs.complete(claim, None, at=NOW + late * SECOND) for late, claim in enumerate(claims))
    )

    assert {(await bench.jobs.get(claim.job_id)).finished_at for claim in claims} == {NOW + SECOND}


@pytest.mark.parametrize("results", [(1, None), (None, 1)])
async def test_a_result_and_none_that_are_handed_over_together_stay_apart(
    bench: Bench, results: tuple[int | None, int | None]
) -> None:
    claims = await bench.claim(*await bench.add_many(2))

    await bench.jobs.complete_many(list(zip(claims, results, strict=True)), at=NOW)

    stored = [await bench.stored(claim.job_id) for claim in claims]
    assert [document.get("result", "absent") for document in stored] == [result or "absent" for result in results]


async def test_outcomes_of_different_kinds_share_no_statement(bench: Bench) -> None:
    done, stopped = await bench.claim(*await bench.add_many(2))

    await asyncio.gather(bench.jobs.complete(done, None, at=NOW), bench.jobs.abandon(stopped, at=NOW))

    assert await bench.status(done.job_id) is Status.COMPLETED
    assert await bench.status(stopped.job_id) is Status.CANCELLED


@pytest.mark.parametrize(
    "result",
    [
        "$status",
        "$$ROOT",
        {"$literal": 1},
        {"$add": ["$retryCount", 1]},
        {"a.b": {"$c": []}},
        {"": 0},
        [],
        {},
        0,
        False,
    ],
)
async def test_a_result_that_looks_like_an_expression_stays_what_it_is(bench: Bench, result: JsonValue) -> None:
    """Alone and with others, to which it may not be given."""
    first, second, alone = await bench.claim(*await bench.add_many(3))

    await asyncio.gather(bench.jobs.complete(first, result, at=NOW), bench.jobs.complete(second, "another", at=NOW))
    await bench.jobs.complete(alone, result, at=NOW)

    assert [(await bench.jobs.get(claim.job_id)).result for claim in (first, second, alone)] == [
        result,
        "another",
        result,
    ]


async def test_completions_that_are_handed_over_together_are_each_told_their_own_end(bench: Bench) -> None:
    plain, result, lost, gone = await bench.claim(*await bench.add_many(4))
    await bench.change_lease(lost, id="another")
    await bench.raw.delete_one({"_id": gone.job_id})
    bench.faults.calls.clear()

    answers = await bench.jobs.complete_many([(plain, None), (result, {"n": 1}), (lost, None), (gone, 2)], at=NOW)

    assert [type(answer) for answer in answers] == [type(None), type(None), LeaseLost, LeaseLost]
    assert bench.faults.calls == ["bulk_write"]
    jobs = [await bench.jobs.get(claim.job_id) for claim in (plain, result)]
    assert [(job.status, job.result) for job in jobs] == [(Status.COMPLETED, None), (Status.COMPLETED, {"n": 1})]
    assert await bench.status(lost.job_id) is Status.PROCESSING


async def test_a_result_that_cannot_be_stored_is_refused_to_none_that_it_is_handed_over_with(bench: Bench) -> None:
    first, refused, last = await bench.claim(*await bench.add_many(3))

    answers = await bench.jobs.complete_many([(first, 1), (refused, {"n": 2**63}), (last, None)], at=NOW)

    assert [type(answer) for answer in answers] == [type(None), InvalidJob, type(None)]
    assert [await bench.status(claim.job_id) for claim in (first, refused, last)] == [
        Status.COMPLETED,
        Status.PROCESSING,
        Status.COMPLETED,
    ]


async def test_more_results_than_one_statement_takes_reach_their_jobs(bench: Bench) -> None:
    claims = await bench.claim(*await bench.add_many(MOST_RESULTS + 2))

    await asyncio.gather(
        *(bench.jobs.complete(claim, {"of": claim.job_id}, at=NOW) for claim in claims),
    )

    jobs = [await bench.jobs.get(claim.job_id) for claim in claims]
    assert [job.result for job in jobs] == [{"of": claim.job_id} for claim in claims]
    assert all(job.status is Status.COMPLETED and job.lease is None and job.finished_at == NOW for job in jobs)


async def test_an_outcome_replaces_what_the_last_one_left(bench: Bench) -> None:
    claims = await bench.claim(*await bench.add_many(2))
    await bench.raw.update_many({}, {"$set": {"lastOutcome": {"leaseId": "old", "kind": "retry", "byHand": 1}}})

    await asyncio.gather(*(bench.jobs.complete(claim, "done", at=NOW) for claim in claims))

    left = [document["lastOutcome"] async for document in bench.raw.find({})]
    assert left == [{"leaseId": claim.lease_id, "kind": "complete"} for claim in claims]


async def test_an_outcome_that_the_server_cannot_take_harms_no_other(bench: Bench) -> None:
    """The document of one job, filled up by hand, has no room for a result."""
    full, *neighbours = await bench.claim(*await bench.add_many(5))
    await bench.raw.update_one({"_id": full.job_id}, {"$set": {"byHand": "x" * ((16 << 20) - 8_000)}})

    answers = await asyncio.gather(
        *(bench.jobs.complete(claim, "r" * 10_000, at=NOW) for claim in (*neighbours[:2], full, *neighbours[2:])),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [*[type(None)] * 2, Unavailable, *[type(None)] * 2]
    assert await bench.status(full.job_id) is Status.PROCESSING
    assert {await bench.status(claim.job_id) for claim in neighbours} == {Status.COMPLETED}


async def test_each_of_a_batch_is_told_its_own_end(bench: Bench) -> None:
    mine, lost, gone, typed = await bench.claim(*await bench.add_many(4))
    await bench.change_lease(lost, id="another")
    await bench.raw.delete_one({"_id": gone.job_id})
    await bench.raw.update_one({"_id": typed.job_id}, {"$set": {"lease": [{"by": "hand"}]}})

    answers = await asyncio.gather(
        *(bench.jobs.complete(claim, None, at=NOW) for claim in (mine, lost, gone, typed)), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [type(None), LeaseLost, LeaseLost, LeaseLost]
    assert await bench.status(mine.job_id) is Status.COMPLETED


@pytest.mark.parametrize("error", [LOST, NO_MAJORITY], ids=["lost", "no-majority"])
async def test_an_outcome_whose_answer_was_lost_is_written_once_and_acknowledged(
    bench: Bench, error: Exception
) -> None:
    completed, retried, released = await bench.claim(*await bench.add_many(3))
    bench.faults.lose_answer("bulk_write", times=2, error=error)

    await asyncio.gather(
        bench.jobs.complete(completed, 1, at=NOW),
        bench.jobs.retry(retried, BOOM, run_at=NOW + SECOND, at=NOW),
        bench.jobs.release(released, at=NOW),
    )

    assert await bench.status(completed.job_id) is Status.COMPLETED
    assert (await bench.jobs.get(retried.job_id)).errors == [BOOM]
    assert (await bench.jobs.get(released.job_id)).retry_count == 0


async def test_a_rescue_is_never_taken_for_the_owners_own_outcome(bench: Bench) -> None:
    """After a lost answer the owner looks at `lastOutcome`; rescue and cancel must not write it."""
    claim = await bench.running()
    await bench.expire(claim)
    await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    with pytest.raises(LeaseLost):
        await bench.jobs.complete(claim, None, at=NOW)

    assert await bench.status(claim.job_id) is Status.PENDING


@GIVES_UP_SOON
async def test_an_outcome_that_finds_no_server_for_long_is_unknown_and_can_be_repeated(bench: Bench) -> None:
    claim = await bench.running()
    bench.faults.fail("bulk_write", times=100)

    with pytest.raises(OutcomeUnknown):
        await bench.jobs.complete(claim, None, at=NOW)

    bench.faults.clear()
    await bench.jobs.complete(claim, None, at=NOW)
    assert await bench.status(claim.job_id) is Status.COMPLETED


@GIVES_UP_SOON
async def test_an_outcome_that_no_majority_has_is_not_acknowledged(bench: Bench) -> None:
    claim = await bench.running()
    bench.faults.lose_answer("bulk_write", times=100, error=NO_MAJORITY)

    with pytest.raises(OutcomeUnknown):
        await bench.jobs.complete(claim, None, at=NOW)


async def test_in_a_sharded_cluster_no_outcomes_share_a_statement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for many may be carried out twice or not at all there, while data moves."""
    claims = await bench.claim(*await bench.add_many(2))
    bench.jobs._store.features = replace(bench.jobs.features, sharded=True)
    monkeypatch.delattr(outcomes, "UpdateMany")

    answers = await bench.jobs.complete_many([(claim, None) for claim in claims], at=NOW)

    assert list(answers) == [None, None]


async def test_a_result_that_cannot_be_stored_is_refused_at_once(bench: Bench) -> None:
    claim, neighbour = await bench.claim(*await bench.add_many(2))

    answers = await asyncio.gather(
        bench.jobs.complete(claim, {"n": 2**63}, at=NOW),
        bench.jobs.complete(neighbour, {"$n": {"a.b": 1}}, at=NOW),
        return_exceptions=True,
    )

    assert isinstance(answers[0], InvalidJob)
    assert await bench.status(claim.job_id) is Status.PROCESSING
    assert (await bench.jobs.get(neighbour.job_id)).result == {"$n": {"a.b": 1}}


async def test_errors_are_the_newest_few_and_their_messages_are_cut(bench: Bench) -> None:
    claim = await bench.running(max_retries=100)
    for attempt in range(MAX_ERRORS + 5):
        error = BOOM.model_copy(update={"attempt": attempt, "message": "\u20ac" * 2000 + "\ud800"})
        await bench.jobs.retry(claim, error, run_at=NOW, at=NOW)
        await bench.jobs.promote(now=NOW, limit=1)
        (claim,) = await bench.claim(await bench.jobs.get(claim.job_id))

    errors = (await bench.jobs.get(claim.job_id)).errors

    assert errors is not None
    assert [error.attempt for error in errors] == list(range(5, MAX_ERRORS + 5))
    # 2048 bytes hold 682 signs of three bytes.
    assert errors[0].message == "\u20ac" * 682


async def test_errors_that_are_no_list_do_not_keep_an_outcome_from_being_written(bench: Bench) -> None:
    claim, neighbour = await bench.claim(*await bench.add_many(2))
    await bench.raw.update_one({"_id": claim.job_id}, {"$set": {"errors": None}})

    await asyncio.gather(bench.jobs.fail(claim, BOOM, at=NOW), bench.jobs.fail(neighbour, BOOM, at=NOW))

    assert (await bench.jobs.get(claim.job_id)).errors == [BOOM]
    assert (await bench.jobs.get(neighbour.job_id)).errors == [BOOM]


async def test_progress_is_shown_while_the_lease_holds(bench: Bench) -> None:
    claim = await bench.running()

    await bench.jobs.report_progress(claim, Progress(percent=50, message="half"), at=NOW)
    assert (await bench.jobs.get(claim.job_id)).progress == Progress(percent=50, message="half")

    await bench.jobs.complete(claim, None, at=NOW)
    with pytest.raises(LeaseLost):
        await bench.jobs.report_progress(claim, Progress(percent=60), at=NOW)


async def test_an_outcome_of_a_job_that_never_was_is_lost(bench: Bench) -> None:
    lease = bench.lease()

    with pytest.raises(LeaseLost):
        await bench.jobs.complete(Claim(JobId("never"), lease.id), None, at=NOW)
