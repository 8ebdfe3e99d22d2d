"""What only a real MongoDB can show: that each query runs on the index it names, that counts are those of one moment,
that the rights in `docs/mongodb.md` are enough, what an election does, and what is made of errors that its own fail
points cause (`enableTestCommands`). Skipped without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from bench import LEASE, NOW, Bench, chosen_backend, ids
from bson import DatetimeMS, Int64
from pymongo.errors import AutoReconnect, OperationFailure

from jobqueue.driver import connect, lease_store
from jobqueue.errors import OutcomeUnknown, Unavailable
from jobqueue.job import Claim, Job, Status
from jobqueue.mongo import MongoJobRepository, indexes, moves
from jobqueue.mongo.overview import HAS_KEY
from jobqueue.repository import JobFilter
from jobqueue.settings import Settings

QUEUES = ["a", "b", "c", "d", "e"]
EXPLAINED: dict[str, dict[str, Any]] = {
    indexes.DUE: {"filter": {"status": "scheduled", "runAt": {"$lt": NOW}}, "sort": {"runAt": 1}},
    indexes.LEASE: {
        "filter": {"status": "processing", "lease.expiresAt": {"$lt": NOW}},
        "sort": {"lease.expiresAt": 1},
    },
    indexes.NEWEST: {"filter": {"seq": {"$gte": 0, "$lt": 2**63 - 1}}, "sort": {"seq": -1}},
    indexes.STATUS_NEWEST: {
        "filter": {"status": "failed", "seq": {"$gte": 0, "$lt": 2**63 - 1}},
        "sort": {"seq": -1},
    },
    indexes.RETENTION: {
        "filter": {"status": "completed", "finishedAt": {"$lt": NOW}},
        "sort": {"finishedAt": 1},
    },
}


@pytest.fixture(params=["mongodb"])
def backend(request: pytest.FixtureRequest) -> str:
    return chosen_backend(request)


def stages(plan: Any) -> set[str]:
    """The names of all stages of a winning plan."""
    if isinstance(plan, list):
        return set().union(*map(stages, plan)) if plan else set()
    if not isinstance(plan, dict):
        return set()
    inner = set().union(*map(stages, plan.values()))
    return inner | ({plan["stage"]} if "stage" in plan else set())


def covered(answer: Any) -> bool:
    """Whether no document was read for this."""
    return not stages(answer) & {"FETCH", "COLLSCAN"}


@pytest.mark.parametrize("index", EXPLAINED)
async def test_a_query_runs_on_its_index_without_a_sort_in_memory(bench: Bench, index: str) -> None:
    await bench.add_many(200)
    find = {"find": "jobs", "limit": 50, "hint": index, **EXPLAINED[index]}

    answer = await bench.raw.database.command({"explain": find, "verbosity": "executionStats"})

    used = stages(answer["queryPlanner"]["winningPlan"])
    assert "SORT" not in used
    assert "COLLSCAN" not in used
    assert answer["executionStats"]["totalKeysExamined"] <= 60


@pytest.mark.parametrize("queues", [QUEUES[:1], QUEUES], ids=["one queue", "five queues"])
async def test_candidates_come_from_the_index_alone_and_in_its_order(bench: Bench, queues: list[str]) -> None:
    for queue in QUEUES:
        await bench.add_many(40, queue=queue)
    find = {
        "find": "jobs",
        "filter": {"queue": {"$in": queues}, "status": "pending"},
        "projection": {"_id": 1, "queue": 1, "priority": 1, "runAt": 1},
        "sort": {"priority": -1, "runAt": 1, "_id": 1},
        "limit": 30,
        "hint": indexes.CLAIM,
    }

    answer = await bench.raw.database.command({"explain": find, "verbosity": "executionStats"})

    assert covered(answer["queryPlanner"]["winningPlan"])
    assert "SORT" not in stages(answer["queryPlanner"]["winningPlan"])
    assert answer["executionStats"]["totalDocsExamined"] == 0
    assert answer["executionStats"]["totalKeysExamined"] <= 30 + 2 * len(queues)


@pytest.mark.parametrize(
    ("index", "pipeline"),
    [
        (indexes.STATUS_NEWEST, [{"$group": {"_id": "$status", "count": {"$sum": 1}}}]),
        (indexes.IDEMPOTENCY_KEY, [{"$match": HAS_KEY}, {"$group": {"_id": 1, "n": {"$sum": 1}}}]),
    ],
)
async def test_totals_are_counted_in_an_index_alone(bench: Bench, index: str, pipeline: list[dict[str, Any]]) -> None:
    for number in range(50):
        await bench.add(idempotency_key=f"order-{number}")
    count = {"aggregate": "jobs", "pipeline": pipeline, "cursor": {}, "hint": index}

    answer = await bench.raw.database.command({"explain": count, "verbosity": "queryPlanner"})

    assert stages(answer) & {"IXSCAN", "COUNT_SCAN"}
    assert covered(answer)


@pytest.mark.parametrize("field", ["idempotencyKey", "uniqueKey"])
async def test_who_has_a_key_is_looked_up_in_the_index_of_keys_without_a_hint(bench: Bench, field: str) -> None:
    await bench.add_many(200)
    find = {"find": "jobs", "filter": {field: {"$in": ["order-1", "order-2"]}}}

    answer = await bench.raw.database.command({"explain": find, "verbosity": "executionStats"})

    assert "IXSCAN" in stages(answer["queryPlanner"]["winningPlan"])
    assert answer["executionStats"]["totalDocsExamined"] == 0


async def test_a_claim_of_many_looks_up_their_ids_however_many_are_pending(bench: Bench) -> None:
    jobs = await bench.add_many(200)
    query = {"_id": {"$in": [job.id for job in jobs[:20]]}, "status": "pending"}
    claim = {"q": query, "u": moves.claim(bench.lease(), at=NOW), "multi": True, "hint": "_id_"}

    answer = await bench.raw.database.command(
        {"explain": {"update": "jobs", "updates": [claim]}, "verbosity": "executionStats"}
    )

    assert answer["executionStats"]["totalKeysExamined"] <= 40
    assert answer["executionStats"]["totalDocsExamined"] <= 20


async def test_counts_add_up_while_jobs_move(bench: Bench) -> None:
    if not bench.jobs.features.replica_set:
        pytest.skip("snapshot reads need a replica set")
    jobs = await bench.add_many(200)

    async def move() -> None:
        while True:
            for claim in await bench.claim(*jobs):
                await bench.jobs.release(claim, at=NOW)

    moving = asyncio.create_task(move())
    sums = [sum((await bench.jobs.count_by_status()).values()) for _ in range(100)]
    assert not moving.done()
    moving.cancel()

    assert set(sums) == {200}


async def test_a_year_beyond_python_does_not_make_a_page_unreadable(bench: Bench) -> None:
    """(The embedded server refuses to store such a date.)"""
    beyond = DatetimeMS(253_402_300_800_000)  # the year 10000
    await bench.put(_id="far", seq=Int64(2), status="scheduled", runAt=beyond, payload=beyond)
    near = await bench.add(seq=1)

    page = await bench.jobs.list(JobFilter(), before=None, limit=10, max_bytes=1 << 20)

    assert ids(page.jobs) == ["far", near.id]
    assert page.jobs[0].run_at == datetime(9999, 12, 31, tzinfo=UTC)


# Rights


@pytest.fixture
async def uri_with_few_rights(bench: Bench, uri: str) -> AsyncIterator[str]:
    """For a user who has the role `readWrite` on this database, and no more."""
    user, database, parts = "jobqueue-test", bench.raw.database, urlsplit(uri)
    try:
        await database.command("createUser", user, pwd="secret", roles=["readWrite"])
    except OperationFailure as error:
        pytest.skip(f"no users can be made here ({error.code})")
    options = dict(parse_qsl(parts.query)) | {"authSource": database.name}
    host = parts.netloc.rpartition("@")[2]
    yield parts._replace(netloc=f"{user}:secret@{host}", path="/", query=urlencode(options)).geturl()
    await database.command("dropUser", user)


async def test_the_role_read_write_is_enough(
    bench: Bench, uri_with_few_rights: str, repository_on: Callable[..., MongoJobRepository]
) -> None:
    """(It shows something where the server has `authorization` on.)"""
    await bench.raw.drop_index(indexes.DUE)
    name = bench.raw.database.name
    jobs = repository_on(connect(Settings(), uri_with_few_rights), name, bench.clock)
    limited = Bench(jobs, bench.raw, backend=bench.backend, faults=bench.faults, clock=bench.clock)
    await jobs.prepare()
    await jobs.check()

    opened = asyncio.Event()
    if jobs.features.change_streams:
        listening = asyncio.ensure_future(anext(jobs.signals(on_open=opened.set)))
        await asyncio.wait_for(opened.wait(), 20)
        await limited.add(queue="mail")
        assert (await asyncio.wait_for(listening, 20)).queue == "mail"
    await limited.candidate_ids()
    done = await limited.in_status(Status.COMPLETED)
    await jobs.totals()
    await jobs.delete(done.job_id)

    running = await limited.running()
    leases = lease_store(Settings(database=name), uri_with_few_rights)
    await asyncio.to_thread(leases.hello)
    await asyncio.to_thread(leases.renew, [running], NOW + 2 * LEASE)
    await asyncio.to_thread(leases.close)
    await jobs.aclose()

    assert (await bench.stored(running.job_id))["status"] == "processing"


# Elections

Election = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def hold_election(bench: Bench) -> Election:
    """Lets the primary step down, for two seconds at least."""

    async def hold() -> None:
        command = {"replSetStepDown": 2, "secondaryCatchUpPeriodSecs": 1, "force": True}
        try:
            await bench.raw.database.client.admin.command(command)
        except AutoReconnect:
            pass  # it may close the connection to whoever asks
        except OperationFailure as error:
            pytest.skip(f"no election can be held here ({error.code})")

    return hold


async def test_what_is_acknowledged_during_an_election_is_there_and_what_is_refused_is_not(
    bench: Bench, hold_election: Election
) -> None:
    election = asyncio.create_task(hold_election())
    asked: list[Job] = []
    answers: list[Job | Exception] = []

    async with asyncio.timeout(60):
        while not (election.done() and len(answers) >= 500 and isinstance(answers[-1], Job)):
            asked.append(bench.new())
            answers += await bench.jobs.insert_many(asked[-1:])
    await election

    there = {document["_id"] for document in await bench.raw.find({}, {"_id": 1}).to_list(None)}
    for job, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, OutcomeUnknown):
            assert isinstance(answer, Job | Unavailable)
            assert (job.id in there) is isinstance(answer, Job)


async def test_outcomes_that_meet_an_election_are_written_once_by_their_owner(
    bench: Bench, hold_election: Election
) -> None:
    claims = await bench.claim(*await bench.add_many(300))
    election = asyncio.create_task(hold_election())

    async def complete(claim: Claim) -> None:
        while True:
            try:
                return await bench.jobs.complete(claim, None, at=NOW)
            except (OutcomeUnknown, Unavailable):
                continue

    async with asyncio.timeout(60):
        for claim in claims:
            await complete(claim)
    await election

    for claim in claims:
        done = await bench.stored(claim.job_id)
        assert (done["status"], done["retryCount"]) == ("completed", 1)
        assert done["lastOutcome"] == {"leaseId": claim.lease_id, "kind": "complete"}


# Fail points

LOST = {"closeConnection": True}
NO_MAJORITY = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
FailOnce = Callable[[str, dict[str, Any]], Awaitable[None]]


@pytest.fixture
async def fail_once(bench: Bench) -> AsyncIterator[FailOnce]:
    """Lets the next command of a name fail."""
    admin, taken = bench.raw.database.client.admin, False

    async def fail(command: str, how: dict[str, Any]) -> None:
        nonlocal taken
        data = {"failCommands": [command], **how}
        try:
            await admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})
        except OperationFailure as error:
            pytest.skip(f"the server takes no fail points, for lack of enableTestCommands ({error.code})")
        taken = True

    yield fail
    if taken:
        await admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.parametrize("how", [LOST, NO_MAJORITY], ids=["connection lost", "no majority"])
async def test_an_insert_that_fails_once_is_repeated_and_leaves_one_document(
    bench: Bench, fail_once: FailOnce, how: dict[str, Any]
) -> None:
    await fail_once("insert", how)

    job = await bench.add()

    assert await bench.raw.count_documents({}) == 1
    assert (await bench.jobs.get(job.id)).insert_id == job.insert_id


@pytest.mark.parametrize("how", [LOST, NO_MAJORITY], ids=["connection lost", "no majority"])
async def test_an_outcome_that_fails_once_is_repeated_and_recognised(
    bench: Bench, fail_once: FailOnce, how: dict[str, Any]
) -> None:
    [claim] = await bench.claim(await bench.add())
    await fail_once("update", how)

    await bench.jobs.complete(claim, {"n": 1}, at=NOW)

    done = await bench.jobs.get(claim.job_id)
    assert (done.status, done.result, done.lease) == (Status.COMPLETED, {"n": 1}, None)


@pytest.mark.parametrize("how", [LOST, NO_MAJORITY], ids=["connection lost", "no majority"])
async def test_a_claim_without_an_answer_is_settled_by_its_lease(
    bench: Bench, fail_once: FailOnce, how: dict[str, Any]
) -> None:
    jobs, lease = await bench.add_many(3), bench.lease()
    await fail_once("update", how)

    with pytest.raises(Unavailable):
        await bench.jobs.claim([job.id for job in jobs], lease, at=NOW)
    won = await bench.jobs.claimed([job.id for job in jobs], lease.id)

    owned = await bench.raw.count_documents({"lease.id": lease.id})
    assert len(won.jobs) == owned
    assert {job.retry_count for job in won.jobs} <= {1}
