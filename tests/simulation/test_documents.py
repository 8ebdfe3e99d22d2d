"""The simulated server understands filters and updates as another implementation of MongoDB does."""

from datetime import UTC, datetime, timedelta
from typing import Any

import mongomock
import pytest
from simulated.documents import in_order, matches, updated

NOW = datetime(2026, 2, 2, tzinfo=UTC)
JOBS: list[dict[str, Any]] = [
    {"_id": "a", "n": 1, "status": "pending", "at": NOW},
    {"_id": "b", "n": 5, "status": "processing", "lease": {"id": "L", "at": NOW + timedelta(seconds=5)}},
    {"_id": "c", "n": None, "tags": ["x", "y"], "errors": [1, 2, 3]},
    {"_id": "d"},
]
FILTERS: list[dict[str, Any]] = [
    {"n": 1},
    {"n": None},
    {"n": {"$ne": None}},
    {"n": {"$gte": 1, "$lt": 5}},
    {"_id": {"$in": ["a", "c"]}, "status": "pending"},
    {"status": {"$ne": "pending"}},
    {"lease": {"$exists": False}},
    {"lease.id": "L", "lease.at": {"$lt": NOW + timedelta(seconds=6)}},
    {"at": {"$gt": NOW}},
    {"at": {"$lte": NOW}},
    {"tags": "x"},
]
UPDATES: list[dict[str, Any]] = [
    {"$set": {"status": "completed", "lease.at": NOW}, "$inc": {"n": -1}},
    {"$unset": {"lease": "", "absent": ""}},
    {"$max": {"lease.at": NOW}},
    {"$max": {"lease.at": NOW + timedelta(days=1)}},
    {"$push": {"errors": {"$each": [4], "$slice": -3}}},
]


@pytest.fixture
def collection() -> Any:
    collection: Any = mongomock.MongoClient(tz_aware=True).db.jobs
    collection.insert_many(JOBS)
    return collection


@pytest.mark.parametrize("query", FILTERS, ids=str)
def test_filters_agree(collection: Any, query: dict[str, Any]) -> None:
    theirs = [document["_id"] for document in collection.find(query)]

    assert [document["_id"] for document in JOBS if matches(document, query)] == theirs


@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_updates_agree(collection: Any, update: dict[str, Any]) -> None:
    collection.update_one({"_id": "b"}, update)

    assert updated(JOBS[1], update) == collection.find_one({"_id": "b"})


def test_what_lacks_a_field_sorts_before_what_has_it(collection: Any) -> None:
    order = [("n", -1), ("_id", 1)]

    assert in_order(JOBS, order) == list(collection.find(sort=order))
