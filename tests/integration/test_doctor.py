"""The doctor on a real server: each finding is provoked and found, --fix mends it, and a healthy database has none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from bench import insert_one
from pymongo import AsyncMongoClient
from worker_records import worker_record

from jobqueue.app import inspecting
from jobqueue.clock import Identifiers
from jobqueue.doctor import CHECKS, Counts, Examination, Inspector, ServerState, examine, treat
from jobqueue.driver import connect
from jobqueue.errors import SchemaConflict
from jobqueue.job import Claim, Job, JobId, Lease, Status, WorkerId
from jobqueue.mongo import MongoJobRepository
from jobqueue.repository import Features, WorkerRecord
from jobqueue.settings import Settings

LEASE = timedelta(seconds=2)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
Raw = Any


@dataclass
class Patient:
    """A database, through the repository, through the driver, and through the doctor."""

    jobs: MongoJobRepository
    raw: Raw
    inspector: Inspector
    identifiers: Identifiers

    async def insert(self, status: Status = Status.PENDING) -> JobId:
        now = datetime.now(UTC).replace(microsecond=0)
        job_id = self.identifiers.job_id(now)
        job = Job(
            id=job_id,
            type="work",
            status=status,
            run_at=now + timedelta(hours=1) if status is Status.SCHEDULED else now,
            created_at=now,
            updated_at=now,
            seq=self.identifiers.seq(now),
            insert_id=self.identifiers.token(),
        )
        await insert_one(self.jobs, job)
        return job_id

    async def claim(self, job_id: JobId) -> Claim:
        now = datetime.now(UTC).replace(microsecond=0)
        lease = Lease(id=self.identifiers.lease_id(), worker_id=WorkerId("w"), expires_at=now + timedelta(minutes=5))
        await self.jobs.claim([job_id], lease, at=now)
        return Claim(job_id, lease.id)

    async def change(self, job_id: JobId, **fields: Any) -> None:
        """As somebody would in mongosh; None takes a field away."""
        update = {"$set": {name.replace("__", "."): value for name, value in fields.items() if value is not None}}
        gone = {name: "" for name, value in fields.items() if value is None}
        await self.raw.jobs.update_one(
            {"_id": job_id}, {name: of for name, of in {**update, "$unset": gone}.items() if of}
        )

    async def examine(self) -> Examination:
        return await examine(self.inspector, lease=LEASE)


@pytest.fixture
async def patient(server_uri: str, database_name: str) -> AsyncIterator[Patient]:
    """A healthy database: some jobs in each state, and a worker."""
    settings = Settings(database=database_name)
    jobs = MongoJobRepository(connect(settings, server_uri), database_name)
    await jobs.prepare()
    async with (
        AsyncMongoClient[dict[str, Any]](server_uri, tz_aware=True) as client,
        inspecting(settings, server_uri) as inspector,
    ):
        patient = Patient(jobs, client[database_name], inspector, Identifiers(Random(3)))
        await patient.insert()
        await patient.insert(Status.SCHEDULED)
        await patient.claim(await patient.insert())
        await jobs.complete(await patient.claim(await patient.insert()), {"ok": True}, at=datetime.now(UTC))
        await jobs.cancel(await patient.insert(), at=datetime.now(UTC))
        await jobs.beat(a_worker())
        yield patient
    await jobs.aclose()


def a_worker() -> WorkerRecord:
    return worker_record("w", at=datetime.now(UTC))


def names(examination: Examination) -> list[str]:
    return [finding.check.name for finding in examination.findings]


async def test_a_healthy_database_has_no_findings(patient: Patient) -> None:
    examination = await patient.examine()

    assert examination.healthy, names(examination)
    assert examination.documents == 5


async def test_examining_changes_nothing(patient: Patient) -> None:
    await damage_everything(patient)
    before = await dump(patient)

    await patient.examine()

    assert await dump(patient) == before


async def dump(patient: Patient) -> list[object]:
    collections = [patient.raw.jobs, patient.raw.signals, patient.raw.workers]
    return [
        [await one.find().sort("_id").to_list() for one in collections],
        [await one.index_information() for one in collections],
    ]


async def test_an_expired_lease_that_nobody_took_back_is_found(patient: Patient) -> None:
    job_id = await patient.insert()
    await patient.claim(job_id)
    await patient.change(job_id, lease__expiresAt=LONG_AGO)

    [finding] = (await patient.examine()).findings

    assert (finding.check.name, finding.examples) == ("lease-expired", [job_id])


async def test_a_lease_that_expired_just_now_is_left_to_the_workers(patient: Patient) -> None:
    job_id = await patient.insert()
    await patient.claim(job_id)
    await patient.change(job_id, lease__expiresAt=datetime.now(UTC) - LEASE)

    assert (await patient.examine()).healthy


Damage = Callable[[Patient, JobId], Any]
DAMAGES: Mapping[str, tuple[Damage, dict[str, Any]]] = {
    "processing-without-lease": (
        lambda patient, job_id: patient.change(job_id, status="processing", retryCount=1),
        {"status": "pending", "retryCount": 1},
    ),
    "lease-without-processing": (
        lambda patient, job_id: patient.change(job_id, lease={"id": "x", "workerId": "w", "expiresAt": LONG_AGO}),
        {"status": "pending", "lease": None},
    ),
    "waiting-with-finishedAt": (
        lambda patient, job_id: patient.change(job_id, finishedAt=LONG_AGO),
        {"status": "pending", "finishedAt": None},
    ),
    "finished-without-finishedAt": (
        lambda patient, job_id: patient.change(job_id, status="completed"),
        {"status": "completed"},
    ),
    "attempts-used-up": (
        lambda patient, job_id: patient.change(job_id, retryCount=3),
        {"status": "failed", "retryCount": 3},
    ),
    "unknown-status": (
        lambda patient, job_id: patient.change(job_id, status="runing"),
        {"status": "failed"},
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_document_that_breaks_an_invariant_is_found_and_mended(patient: Patient, name: str) -> None:
    damage, expected = DAMAGES[name]
    job_id = await patient.insert()
    await damage(patient, job_id)

    examination = await patient.examine()
    mended = await treat(patient.inspector, examination)

    assert [(found.check.name, found.count, found.examples) for found in examination.findings] == [(name, 1, [job_id])]
    assert mended == {name: 1}
    assert (await patient.examine()).healthy
    document = await patient.raw.jobs.find_one({"_id": job_id})
    assert {field: document.get(field) for field in expected} == expected
    assert (document.get("finishedAt") is not None) == (document["status"] in ("completed", "failed"))


@pytest.mark.parametrize(
    "status", [{"a": 1}, {"$gt": 1}, ["pending"], ["pending", "x"], ["runing"], [["runing"]], [], 5.0, True]
)
async def test_a_state_that_is_no_text_is_found_and_mended(patient: Patient, status: object) -> None:
    job_id = await patient.insert()
    await patient.raw.jobs.update_one({"_id": job_id}, [{"$set": {"status": {"$literal": status}}}])

    examination = await patient.examine()
    mended = await treat(patient.inspector, examination)

    assert [(one.check.name, one.examples) for one in examination.findings] == [("unknown-status", [job_id])]
    assert mended == {"unknown-status": 1}
    assert (await patient.examine()).healthy
    assert (await patient.raw.jobs.find_one({"_id": job_id}))["status"] == "failed"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"retryCount": 3}, "failed"),
        ({"retryCount": 1, "cancelRequestedAt": LONG_AGO}, "cancelled"),
        ({"retryCount": 1, "lease": {"id": "x", "workerId": "w"}}, "pending"),
        ({"retryCount": 1, "lease": {"id": "x", "workerId": "w", "expiresAt": "soon"}}, "pending"),
        ({"retryCount": 1, "lease": {"id": 7, "workerId": "w", "expiresAt": LONG_AGO}}, "pending"),
        ({"retryCount": 1, "lease": "gone"}, "pending"),
    ],
)
async def test_what_is_processing_without_an_owner_goes_where_a_rescue_would_put_it(
    patient: Patient, fields: dict[str, Any], status: str
) -> None:
    job_id = await patient.insert()
    await patient.change(job_id, status="processing", **fields)

    await treat(patient.inspector, await patient.examine())

    document = await patient.raw.jobs.find_one({"_id": job_id})
    assert (document["status"], "lease" in document) == (status, False)
    assert [error["type"] for error in document["errors"]] == ["LeaseMissing"]
    assert (await patient.examine()).healthy


async def test_a_document_that_moved_on_since_it_was_seen_is_left_alone(patient: Patient) -> None:
    job_id = await patient.insert()
    await patient.change(job_id, finishedAt=LONG_AGO)
    examination = await patient.examine()
    await patient.claim(job_id)
    before = await patient.raw.jobs.find_one({"_id": job_id})

    mended = await treat(patient.inspector, examination)

    assert mended == {"waiting-with-finishedAt": 0}
    assert await patient.raw.jobs.find_one({"_id": job_id}) == before


@pytest.mark.parametrize(
    ("run_at", "due"),
    [("2026-01-01T00:00:00Z", LONG_AGO), (LONG_AGO.timestamp(), LONG_AGO), (None, None)],
    ids=["text", "number", "missing"],
)
async def test_a_job_that_waits_for_what_is_no_date_is_found_and_waits_for_the_time_that_was_meant(
    patient: Patient, run_at: object, due: datetime | None
) -> None:
    job_id = await patient.insert(Status.SCHEDULED)
    await patient.change(job_id, runAt=run_at)
    missed = await patient.jobs.promote(now=datetime.now(UTC), limit=10)

    examination = await patient.examine()
    mended = await treat(patient.inspector, examination)

    assert missed.candidates == []
    assert [(one.check.name, one.examples) for one in examination.findings] == [("scheduled-without-time", [job_id])]
    assert mended == {"scheduled-without-time": 1}
    assert (await patient.examine()).healthy
    document = await patient.raw.jobs.find_one({"_id": job_id})
    now = examination.server.now
    assert document["status"] == "scheduled"
    assert document["runAt"] == (due or now.replace(microsecond=now.microsecond // 1000 * 1000))
    promoted = await patient.jobs.promote(now=now, limit=10)
    assert [one.id for one in promoted.candidates] == [job_id]


async def test_a_job_that_waits_for_a_time_that_cannot_be_understood_is_moved_to_failed(patient: Patient) -> None:
    job_id = await patient.insert(Status.SCHEDULED)
    await patient.change(job_id, runAt="tomorrow")

    await treat(patient.inspector, await patient.examine())

    document = await patient.raw.jobs.find_one({"_id": job_id})
    assert (document["status"], [error["type"] for error in document["errors"]]) == ("failed", ["Unreadable"])
    assert names(await patient.examine()) == ["unreadable"]


async def test_more_attempts_than_allowed_are_found(patient: Patient) -> None:
    job_id = await patient.insert()
    await patient.jobs.complete(await patient.claim(job_id), None, at=datetime.now(UTC))
    await patient.change(job_id, retryCount=4)

    assert names(await patient.examine()) == ["too-many-attempts"]


async def test_documents_that_cannot_be_read_are_found(patient: Patient) -> None:
    job_id = await patient.insert()
    await patient.change(job_id, errors="none so far")

    assert names(await patient.examine()) == ["unreadable"]


async def test_what_was_typed_in_and_never_adopted_is_found(patient: Patient) -> None:
    await patient.raw.jobs.insert_one({"type": "work"})

    assert names(await patient.examine()) == ["not-adopted"]


async def test_a_queue_that_no_worker_would_look_into_is_found_and_made_known(patient: Patient) -> None:
    await patient.insert()
    await patient.raw.signals.delete_many({})

    examination = await patient.examine()
    await treat(patient.inspector, examination)

    assert [(found.check.name, found.examples) for found in examination.findings] == [("queue-unknown", ["default"])]
    assert await patient.jobs.known_queues() == ["default"]
    assert (await patient.examine()).healthy


async def test_without_any_worker_waiting_jobs_are_a_finding(patient: Patient) -> None:
    await patient.raw.workers.delete_many({})

    assert names(await patient.examine()) == ["no-workers"]


async def test_a_missing_index_is_found_and_made(patient: Patient) -> None:
    await patient.raw.jobs.drop_index("claim_v1")

    examination = await patient.examine()
    mended = await treat(patient.inspector, examination)

    assert [(f.check.name, f.examples) for f in examination.findings] == [("index-missing", ["jobs.claim_v1"])]
    assert mended == {"index-missing": 1}
    await patient.jobs.check()
    assert (await patient.examine()).healthy


@pytest.mark.parametrize(
    ("dropped", "made"),
    [
        ("due_v1", {"keys": [("updatedAt", 1)], "name": "due_v1"}),
        ("idempotency_key_v1", {"keys": [("idempotencyKey", 1)], "name": "idempotency_key_v1"}),
        ("retention_v2", {"keys": [("status", 1), ("finishedAt", 1)], "name": "by_hand"}),
    ],
    ids=["other keys", "not unique", "our keys under another name"],
)
async def test_the_conflict_that_keeps_a_process_from_starting_is_mended(
    patient: Patient, dropped: str, made: dict[str, Any]
) -> None:
    """The message of the start names `doctor --fix`."""
    await patient.raw.jobs.drop_index(dropped)
    await patient.raw.jobs.create_index(made["keys"], name=made["name"])

    examination = await patient.examine()
    await treat(patient.inspector, examination)

    assert "index-different" in names(examination)
    await patient.jobs.prepare()
    assert (await patient.examine()).healthy


async def test_such_a_conflict_does_keep_a_process_from_starting(patient: Patient) -> None:
    await patient.raw.jobs.drop_index("due_v1")
    await patient.raw.jobs.create_index([("updatedAt", 1)], name="due_v1")

    with pytest.raises(SchemaConflict, match="jobqueue doctor --fix"):
        await patient.jobs.prepare()


async def test_an_index_of_somebody_else_is_told_and_never_dropped(patient: Patient) -> None:
    await patient.raw.jobs.create_index([("payload.customer", 1)], name="customers")

    examination = await patient.examine()
    mended = await treat(patient.inspector, examination)

    assert [(f.check.name, f.examples) for f in examination.findings] == [("index-foreign", ["jobs.customers"])]
    assert mended == {}
    assert "customers" in await patient.raw.jobs.index_information()


class Told:
    """The inspector of a healthy database, but for what it is told to say."""

    def __init__(self, inspector: Inspector, *, counts: Counts | None = None, **server: Any) -> None:
        self._inspector, self._counts, self._server = inspector, counts, server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inspector, name)

    async def server(self) -> ServerState:
        return replace(await self._inspector.server(), **self._server)

    async def counts(self) -> Counts:
        return self._counts or await self._inspector.counts()


REPLICA_SET = Features("MongoDB", "8.0.4", replica_set=True, change_streams=True)


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ({"features": REPLICA_SET, "retry_writes": True}, []),
        ({"features": REPLICA_SET, "retry_writes": False}, ["retry-writes-off"]),
        ({"features": replace(REPLICA_SET, version="6.0.19"), "retry_writes": True}, ["old-server"]),
        ({"features": Features("MongoDB", "8.0.4"), "retry_writes": True}, ["standalone"]),
        (
            {"features": Features("MongoDB", "8.0.4", sharded=True, change_streams=True), "retry_writes": True},
            ["sharded"],
        ),
        ({"offset": timedelta(seconds=-90)}, ["clock-offset"]),
        ({"counts": Counts(by_status=4, total=5)}, ["counts-disagree"]),
    ],
)
async def test_what_the_embedded_server_cannot_be_is_judged_by_what_a_server_says(
    patient: Patient, server: dict[str, Any], found: list[str]
) -> None:
    told: Any = Told(patient.inspector, **server)

    assert names(await examine(told, lease=LEASE)) == found


async def damage_everything(patient: Patient) -> None:
    for damage, _ in DAMAGES.values():
        await damage(patient, await patient.insert())
    await patient.raw.signals.delete_many({})
    await patient.raw.jobs.drop_index("claim_v1")


async def test_everything_at_once_is_mended_at_once(patient: Patient) -> None:
    await damage_everything(patient)

    examination = await patient.examine()
    await treat(patient.inspector, examination)

    assert len(examination.findings) == len(DAMAGES) + 2
    assert (await patient.examine()).healthy


def test_every_check_says_what_it_means_and_what_to_do() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 22
    assert all(check.means and check.remedy for check in CHECKS)
    assert all(("--fix" in check.remedy) == check.fixable for check in CHECKS)
