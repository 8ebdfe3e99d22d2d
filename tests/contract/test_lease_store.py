"""Renewing leases over a synchronous connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from bench import LEASE, NOW, Bench, chosen_backend
from pymongo import MongoClient, UpdateMany, UpdateOne

from jobqueue.driver import lease_store
from jobqueue.errors import Unavailable
from jobqueue.job import Claim, JobId, LeaseId
from jobqueue.mongo.leases import MongoLeaseStore
from jobqueue.repository import Held
from jobqueue.settings import Settings


@pytest.fixture(params=["embedded-motor", "mongodb"])
def backend(request: pytest.FixtureRequest) -> str:
    """It has a driver of its own, so the choice of driver makes no difference, and mongomock has no server."""
    return chosen_backend(request)


@pytest.fixture
async def store(bench: Bench, uri: str) -> AsyncIterator[MongoLeaseStore]:
    store = lease_store(Settings(database=bench.raw.database.name, lease_seconds=15), uri)
    yield store
    store.close()


async def test_hello_tells_the_servers_clock(store: MongoLeaseStore) -> None:
    hello = await asyncio.to_thread(store.hello)

    assert abs(hello.local_time - datetime.now(UTC)) < timedelta(minutes=5)
    assert hello.round_trip_seconds >= 0
    assert hello.primary == (await asyncio.to_thread(store.hello)).primary


async def test_a_renewal_lengthens_leases_and_never_shortens_them(bench: Bench, store: MongoLeaseStore) -> None:
    claims = [await bench.running(), *await bench.claim(*await bench.add_many(2))]

    await asyncio.to_thread(store.renew, claims, NOW + 2 * LEASE)
    await asyncio.to_thread(store.renew, claims, NOW)

    leases = [(await bench.jobs.get(claim.job_id)).lease for claim in claims]
    assert {lease.expires_at for lease in leases if lease is not None} == {NOW + 2 * LEASE}


async def test_only_the_owner_renews_and_updated_at_stays(bench: Bench, store: MongoLeaseStore) -> None:
    claim, neighbour = await bench.claim(*await bench.add_many(2))
    await bench.change_lease(claim, id="another")
    before = await bench.stored(claim.job_id)

    await asyncio.to_thread(store.renew, [claim, neighbour], NOW + 2 * LEASE)

    assert await bench.stored(claim.job_id) == before
    renewed = await bench.jobs.get(neighbour.job_id)
    assert renewed.updated_at == NOW
    assert renewed.lease is not None
    assert renewed.lease.expires_at == NOW + 2 * LEASE


async def test_a_renewed_lease_is_not_rescued(bench: Bench, store: MongoLeaseStore) -> None:
    claim = await bench.running()
    await bench.expire(claim)

    async def renew() -> None:
        await asyncio.to_thread(store.renew, [claim], NOW + LEASE)

    bench.faults.meanwhile("bulk_write", renew)
    rescued = await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)

    assert list(rescued.requeued) == []
    await bench.jobs.complete(claim, None, at=NOW)


async def test_a_look_tells_who_owns_a_job_and_whether_it_is_to_stop(bench: Bench, store: MongoLeaseStore) -> None:
    running, asked, done, typed = await bench.claim(*await bench.add_many(4))
    await bench.jobs.cancel(asked.job_id, at=NOW)
    await bench.jobs.complete(done, None, at=NOW)
    await bench.raw.update_one({"_id": typed.job_id}, {"$set": {"lease": [{"id": "mine"}]}})

    claims = (running, asked, done, typed)
    held = await asyncio.to_thread(store.held, [*(claim.job_id for claim in claims), JobId("gone")])

    assert held == {
        running.job_id: Held(running.lease_id, cancel_requested=False),
        asked.job_id: Held(asked.lease_id, cancel_requested=True),
        done.job_id: Held(None, cancel_requested=False),
        typed.job_id: Held(None, cancel_requested=False),
    }


async def test_renewing_nothing_asks_nobody(store: MongoLeaseStore) -> None:
    store.renew([], NOW)
    assert store.held([]) == {}


def test_it_can_be_made_in_a_thread_and_gives_up_in_a_third_of_a_lease(port: int) -> None:
    errors: list[Exception] = []

    def use() -> None:
        store = lease_store(Settings(lease_seconds=0.6), f"mongodb://127.0.0.1:{port}/")
        claim = Claim(JobId("a"), LeaseId("L"))
        for ask in (store.hello, lambda: store.renew([claim], NOW), lambda: store.held([claim.job_id])):
            try:
                ask()
            except Unavailable as error:
                errors.append(error)
        store.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(timeout=30)

    assert [str(error) for error in errors] == [
        f"cannot {what}: no MongoDB server could be reached"
        for what in ("reach MongoDB", "renew leases", "renew leases")
    ]


class Answering:
    """A client whose primary says of itself what the test says."""

    def __init__(self) -> None:
        self.admin = self
        self.answer: dict[str, Any] = {"localTime": NOW}
        self.written: list[object] = []

    def __getitem__(self, name: str) -> Answering:
        return self

    def get_collection(self, name: str, **options: object) -> Answering:
        return self

    def bulk_write(self, writes: Sequence[object], **options: object) -> None:
        self.written += writes

    def command(self, name: str, **options: object) -> dict[str, Any]:
        return self.answer


def test_another_primary_or_the_same_one_in_another_term_is_told_apart() -> None:
    client = Answering()
    store = MongoLeaseStore(cast(MongoClient[dict[str, Any]], client), "jobs")

    seen = [store.hello().primary]
    for name in ("primary", "me", "setVersion", "electionId"):
        client.answer[name] = "another"
        seen.append(store.hello().primary)

    assert len(set(seen)) == 5


@pytest.mark.parametrize(("message", "statements"), [({}, [UpdateMany]), ({"msg": "isdbgrid"}, [UpdateOne] * 2)])
def test_in_a_sharded_cluster_each_lease_is_renewed_by_a_statement_of_its_own(
    message: dict[str, str], statements: list[type]
) -> None:
    """One for many may be carried out twice or not at all there, while data moves."""
    client = Answering()
    client.answer |= message
    store = MongoLeaseStore(cast(MongoClient[dict[str, Any]], client), "jobs")
    store.hello()

    store.renew([Claim(JobId(name), LeaseId("L")) for name in "ab"], NOW)

    assert [type(one) for one in client.written] == statements
