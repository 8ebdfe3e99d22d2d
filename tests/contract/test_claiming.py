"""Candidates in claim order, and claims that only one can win."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bench import NOW, SECOND, Bench, ids
from faults import NO_MAJORITY
from pymongo.errors import OperationFailure

from jobqueue.errors import Unavailable
from jobqueue.job import Backoff, Candidate, Job, JobId, LeaseId, Status
from jobqueue.mongo import claims
from jobqueue.mongo.documents import to_document
from jobqueue.mongo.fresh import BELIEVED_SECONDS
from jobqueue.repository import Window


def ids_of(window: Window) -> list[JobId]:
    return [candidate.id for candidate in window.candidates]


MODES = ["auto", "single", "batch"]


@pytest.fixture(params=MODES)
def claim_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class InAutoMode:
    """How candidates are found does not depend on how they are claimed."""

    @pytest.fixture
    def claim_mode(self) -> str:
        return "auto"


class TestCandidates(InAutoMode):
    async def test_the_highest_priority_runs_first_then_the_longest_due_then_by_id(self, bench: Bench) -> None:
        made = [
            bench.new(priority=priority, run_at=NOW - SECOND * late, queue=queue)
            for priority in (-1, 0, 1000)
            for late in (0, 5)
            for queue in ("a", "b")
        ]
        random.Random(1).shuffle(made)
        await bench.jobs.insert_many(made)

        window = await bench.jobs.candidates(["a", "b", "none"], after=None, limit=100)

        assert window.candidates == sorted(Candidate.of(job) for job in made)
        assert window.complete

    async def test_pages_of_candidates_go_on_where_the_last_ended(self, bench: Bench) -> None:
        made = [bench.new(priority=number % 3, run_at=NOW - SECOND * (number % 2)) for number in range(30)]
        await bench.jobs.insert_many(made)
        seen: dict[Candidate, None] = {}

        after, complete = None, False
        while not complete:
            window = await bench.jobs.candidates(["default"], after=after, limit=8)
            after, complete = window.candidates[-1], window.complete
            seen |= dict.fromkeys(window.candidates)

        assert list(seen) == sorted(Candidate.of(job) for job in made)

    async def test_a_window_is_complete_only_when_nothing_was_left_behind(self, bench: Bench) -> None:
        await bench.add_many(4)

        assert (await bench.jobs.candidates(["default"], after=None, limit=5)).complete
        assert not (await bench.jobs.candidates(["default"], after=None, limit=4)).complete

    async def test_more_queues_than_one_query_takes_keep_their_order(self, bench: Bench) -> None:
        made = [bench.new(queue=f"q{number}", priority=number % 7) for number in range(250)]
        for job in made:
            await bench.put(**{"_id": job.id, "queue": job.queue, "status": "pending", "priority": job.priority})
        await bench.raw.update_many({}, {"$set": {"runAt": NOW}})

        window = await bench.jobs.candidates([job.queue for job in made], after=None, limit=50)

        expected = sorted(Candidate(-job.priority, NOW, job.id, job.queue) for job in made)
        assert window.candidates == expected[:50]
        assert not window.complete

    async def test_of_queues_that_are_read_apart_nothing_comes_before_what_one_of_them_may_have_left(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(claims, "MAX_QUEUES", 1)
        await bench.put(_id="odd", queue="a", status="pending", priority=9, runAt="soon", seq=1)
        high, middle, low = [
            await bench.add(queue=queue, priority=rank) for rank, queue in ((5, "a"), (4, "a"), (3, "b"))
        ]

        nothing, one, all_of_them = [
            await bench.jobs.candidates(["a", "b"], after=None, limit=limit) for limit in (1, 2, 4)
        ]

        assert [ids_of(window) for window in (nothing, one, all_of_them)] == [
            [],
            [high.id],
            [high.id, middle.id, low.id],
        ]
        assert [window.complete for window in (nothing, one, all_of_them)] == [False, False, True]

    async def test_queues_that_are_read_apart_do_not_look_complete_when_they_do_not_fit_together(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(claims, "MAX_QUEUES", 1)
        made = [await bench.add(queue=queue) for queue in ("a", "b", "c")]

        window = await bench.jobs.candidates(["a", "b", "c"], after=None, limit=2)

        assert ids_of(window) == [job.id for job in made[:2]]
        assert not window.complete

    async def test_only_due_and_pending_jobs_of_these_queues_are_candidates(self, bench: Bench) -> None:
        wanted = await bench.add()
        await bench.add(queue="other")
        await bench.add(status=Status.SCHEDULED, run_at=NOW + SECOND)
        await bench.running()

        assert await bench.candidate_ids("default") == [wanted.id]
        assert (await bench.jobs.candidates([], after=None, limit=5)).complete

    async def test_what_cannot_be_read_is_left_out_and_never_makes_a_window_look_complete(self, bench: Bench) -> None:
        good = await bench.add(priority=-5)
        pending = {"queue": "default", "status": "pending", "seq": 1}
        await bench.put(_id=7, priority=1, runAt=NOW, **pending)
        await bench.put(_id="no-date", priority=1, runAt="soon", **pending)
        await bench.put(_id="no-number", priority="high", runAt=NOW, **pending)

        full = await bench.jobs.candidates(["default"], after=None, limit=4)
        all_of_them = await bench.jobs.candidates(["default"], after=None, limit=5)

        assert [candidate.id for candidate in all_of_them.candidates] == [good.id]
        assert all_of_them.complete
        assert not full.complete

        await bench.jobs.adopt(at=NOW, limit=10)

        assert set(await bench.candidate_ids()) == {good.id, "7"}
        assert await bench.status("no-date") is Status.FAILED


async def test_a_claim_counts_the_attempt_and_shows_the_job_as_it_is_now(bench: Bench) -> None:
    job = await bench.add(payload={"n": 1})
    await bench.raw.update_one({"_id": job.id}, {"$set": {"retryCount": 2, "payload": {"n": 2}}})
    lease = bench.lease()

    won = await bench.jobs.claim([job.id], lease, at=NOW)

    (claimed,) = won.jobs
    assert (claimed.status, claimed.retry_count, claimed.payload) == (Status.PROCESSING, 3, {"n": 2})
    assert (claimed.lease, claimed.started_at) == (lease, NOW)
    assert await bench.jobs.get(job.id) == claimed


async def test_each_of_many_jobs_is_claimed_by_one_of_many_claimers(bench: Bench) -> None:
    jobs = await bench.add_many(60)
    rng = random.Random(2)

    async def claim_some() -> list[JobId]:
        wanted = rng.sample(ids(jobs), 40)
        return ids((await bench.jobs.claim(wanted, bench.lease(), at=NOW)).jobs)

    won = Counter(job_id for some in await asyncio.gather(*(claim_some() for _ in range(8))) for job_id in some)

    assert set(won.values()) == {1}
    assert await bench.raw.count_documents({"status": "processing", "retryCount": 1}) == len(won)


async def test_a_claim_wins_only_what_is_pending(bench: Bench) -> None:
    jobs = await bench.add_many(3)
    await bench.claim(jobs[1])

    won = await bench.jobs.claim([*ids(jobs), JobId("gone")], bench.lease(), at=NOW)

    assert set(ids(won.jobs)) == {jobs[0].id, jobs[2].id}
    assert won.unreadable == []


async def test_after_a_lost_answer_the_lease_tells_what_was_won(bench: Bench) -> None:
    jobs = await bench.add_many(3)
    lease = bench.lease()
    for method in ("update_many", "find_one_and_update"):
        bench.faults.lose_answer(method)

    with pytest.raises(Unavailable):
        await bench.jobs.claim(ids(jobs), lease, at=NOW)

    won = await bench.jobs.claimed(ids(jobs), lease.id)
    assert won.jobs
    assert {job.retry_count for job in won.jobs} == {1}
    assert (await bench.jobs.claimed(ids(jobs), LeaseId("other"))).jobs == []


async def test_a_document_that_cannot_be_read_is_won_by_itself_and_can_be_quarantined(bench: Bench) -> None:
    good, bad = await bench.add_many(2)
    await bench.raw.update_one({"_id": bad.id}, {"$set": {"tags": {"not": "a list"}, "errors": "none"}})
    lease = bench.lease()

    won = await bench.jobs.claim([good.id, bad.id], lease, at=NOW)

    assert ids(won.jobs) == [good.id]
    ((claim, reason),) = won.unreadable
    assert claim == (bad.id, lease.id)
    assert "tags" in reason

    await bench.jobs.quarantine(claim, reason, at=NOW)

    shown = await bench.jobs.get(bad.id)
    assert shown.status is Status.FAILED
    assert shown.finished_at == NOW
    assert shown.errors is not None
    assert "tags" in shown.errors[0].message


async def test_a_document_that_refuses_a_claim_fails_and_its_neighbours_run(bench: Bench) -> None:
    jobs = await bench.add_many(5)
    await bench.raw.update_one({"_id": jobs[2].id}, {"$set": {"retryCount": "none"}})

    won = await bench.jobs.claim(ids(jobs), bench.lease(), at=NOW)

    assert set(ids(won.jobs)) == {job.id for job in jobs if job != jobs[2]}
    assert {job.retry_count for job in won.jobs} == {1}
    document = await bench.stored(jobs[2].id)
    assert (document["status"], document["finishedAt"]) == ("failed", NOW)
    assert document["errors"][0]["type"] == "Unreadable"


async def test_a_document_that_refuses_a_claim_and_is_cancelled_meanwhile_stays_cancelled(bench: Bench) -> None:
    job = await bench.add()
    await bench.raw.update_one({"_id": job.id}, {"$set": {"retryCount": "none"}})

    async def cancel() -> None:
        await bench.raw.update_one({"_id": job.id}, {"$set": {"status": "cancelled"}})

    bench.faults.meanwhile("update_one", cancel)
    await bench.jobs.claim([job.id], bench.lease(), at=NOW)

    assert (await bench.stored(job.id))["status"] == "cancelled"


async def test_a_claim_that_the_server_refuses_for_no_fault_of_the_jobs_leaves_them_pending(bench: Bench) -> None:
    jobs = await bench.add_many(2)
    for method in ("update_many", "find_one_and_update"):
        bench.faults.fail(method, error=OperationFailure("not authorized", 13))

    with pytest.raises(Unavailable):
        await bench.jobs.claim(ids(jobs), bench.lease(), at=NOW)

    assert {await bench.status(job.id) for job in jobs} == {Status.PENDING}


async def test_a_claim_one_by_one_that_no_majority_has_is_not_won(bench: Bench, claim_mode: str) -> None:
    """After the statement for all of them was refused because of one."""
    jobs = await bench.add_many(2)
    bench.faults.fail("update_many", error=OperationFailure("cannot increment", 14))
    for method in ("bulk_write", "find_one_and_update"):
        bench.faults.lose_answer(method, error=NO_MAJORITY)

    with pytest.raises(Unavailable):
        await bench.jobs.claim(ids(jobs), bench.lease(), at=NOW)


async def test_numbers_that_mongosh_wrote_as_doubles_are_read(bench: Bench) -> None:
    job = await bench.add()
    changes = {"retryCount": 1.0, "maxRetries": 4.0, "priority": 5.0, "timeoutSeconds": 3}
    await bench.raw.update_one({"_id": job.id}, {"$set": changes})

    won = await bench.jobs.claim([job.id], bench.lease(), at=NOW)

    (claimed,) = won.jobs
    assert isinstance(claimed, Job)
    assert (claimed.retry_count, claimed.max_retries, claimed.priority) == (2, 4, 5)


class TestStatements(InAutoMode):
    @pytest.mark.parametrize("count", [1, 2])
    async def test_one_job_is_claimed_by_find_and_modify_where_that_is_cheap(self, bench: Bench, count: int) -> None:
        jobs = await bench.add_many(count)
        bench.faults.calls.clear()

        await bench.jobs.claim(ids(jobs), bench.lease(), at=NOW)

        cheap = count == 1 and not bench.jobs.features.embedded
        assert bench.faults.calls == ["find_one_and_update" if cheap else "update_many"]

    @pytest.mark.parametrize("near", [False, True])
    async def test_in_a_sharded_cluster_each_has_a_statement_of_its_own(self, bench: Bench, near: bool) -> None:
        """One for many may be carried out twice or not at all there, while data moves."""
        jobs = [await bench.add(insert_id=bench.ids.insert_id(near=near)) for _ in range(2)]
        bench.jobs._store.features = replace(bench.jobs.features, sharded=True)
        bench.faults.calls.clear()

        won = await bench.jobs.claim(ids(jobs), bench.lease(), at=NOW)

        assert bench.faults.calls == ["bulk_write"]
        assert {job.retry_count for job in won.jobs} == {1}


async def test_a_claim_of_nothing_wins_nothing(bench: Bench) -> None:
    won = await bench.jobs.claim([], bench.lease(), at=NOW + timedelta(1))

    assert (list(won.jobs), list(won.unreadable)) == ([], [])


class TestFreshJobs:
    """Jobs that were just stored beside workers: not read when they are claimed, if the claim vouches for them."""

    @staticmethod
    async def fresh(bench: Bench, **fields: Any) -> Job:
        return await bench.add(insert_id=bench.ids.insert_id(near=True), **fields)

    async def test_they_are_claimed_as_if_they_had_been_read(self, bench: Bench) -> None:
        made = [
            await self.fresh(bench, payload=payload, type="t", tags=["a"], backoff=Backoff(base_seconds=2), priority=3)
            for payload in (None, {"n": 2**62, "f": 1.5, "$x": {"a.b": [None, "é"]}}, {"$ref": "x", "$id": 1}, [1, "2"])
        ]

        won = await bench.jobs.claim(ids(made), bench.lease(), at=NOW + SECOND)

        assert {job.id: job for job in won.jobs} == await bench.jobs.get_many(ids(made))
        assert {job.retry_count for job in won.jobs} == {1}

    async def test_what_a_task_does_to_its_payload_is_nobody_elses(self, bench: Bench) -> None:
        job = await self.fresh(bench, payload={"n": 1})

        won = await bench.jobs.claim([job.id], bench.lease(), at=NOW)
        won.jobs[0].payload["n"] = 2

        assert job.payload == {"n": 1}

    async def test_one_that_was_run_meanwhile_is_not_claimed_as_if_it_had_not(self, bench: Bench) -> None:
        tried, untouched = await self.fresh(bench), await self.fresh(bench)
        await bench.raw.update_one({"_id": tried.id}, {"$set": {"retryCount": 1}})

        won = await bench.jobs.claim([tried.id, untouched.id], bench.lease(), at=NOW)
        again = await bench.jobs.claim([tried.id], bench.lease(), at=NOW)

        counts = {job.id: job.retry_count for job in [*won.jobs, *again.jobs]}
        assert counts == {untouched.id: 1, tried.id: 2}

    async def test_one_that_was_deleted_and_stored_anew_is_claimed_as_it_is_now(self, bench: Bench) -> None:
        old = await self.fresh(bench, payload="old")
        await bench.raw.delete_one({"_id": old.id})
        await bench.put(**to_document(bench.new(id=old.id, payload="new")))

        first = await bench.jobs.claim([old.id], bench.lease(), at=NOW)
        second = await bench.jobs.claim([old.id], bench.lease(), at=NOW)

        assert [job.payload for job in [*first.jobs, *second.jobs]] == ["new"]

    async def test_one_that_another_has_is_not_won(self, bench: Bench) -> None:
        taken, free = await self.fresh(bench), await self.fresh(bench)
        await bench.raw.update_one({"_id": taken.id}, {"$set": {"status": "processing"}})

        won = await bench.jobs.claim([taken.id, free.id], bench.lease(), at=NOW)

        assert ids(won.jobs) == [free.id]

    async def test_they_are_read_when_some_time_has_passed(self, bench: Bench) -> None:
        job = await self.fresh(bench, payload="as it was stored")
        await bench.raw.update_one({"_id": job.id}, {"$set": {"payload": "as it is"}})
        bench.clock.move(timedelta(seconds=BELIEVED_SECONDS + 1))

        won = await bench.jobs.claim([job.id], bench.lease(), at=bench.clock.now())

        assert [each.payload for each in won.jobs] == ["as it is"]

    async def test_they_are_read_when_they_were_heard_of_late(self, bench: Bench) -> None:
        made_at = bench.clock.now() - timedelta(seconds=BELIEVED_SECONDS + 1)
        job = await self.fresh(bench, created_at=made_at, payload="as it was stored")
        await bench.raw.update_one({"_id": job.id}, {"$set": {"payload": "as it is", "retryCount": 1}})

        won = await bench.jobs.claim([job.id], bench.lease(), at=bench.clock.now())

        assert [(each.payload, each.retry_count) for each in won.jobs] == [("as it is", 2)]

    async def test_one_that_must_be_read_keeps_none_from_being_claimed(self, bench: Bench) -> None:
        made_at = bench.clock.now() - timedelta(seconds=BELIEVED_SECONDS + 1)
        made = [await self.fresh(bench), await self.fresh(bench, created_at=made_at)]

        won = await bench.jobs.claim(ids(made), bench.lease(), at=bench.clock.now())

        assert set(ids(won.jobs)) == set(ids(made))
