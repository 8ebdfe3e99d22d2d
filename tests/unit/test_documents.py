"""Reading what people type into mongosh, writing what the indexes rely on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import bson
import pytest
from bson import DatetimeMS, Decimal128, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion

from jobqueue.api.answers import encode
from jobqueue.job import (
    EPOCH,
    AttemptError,
    Backoff,
    Job,
    JobId,
    JobView,
    LastOutcome,
    Lease,
    LeaseId,
    Progress,
    Status,
    WorkerId,
    cut,
)
from jobqueue.mongo.documents import Unreadable, is_whole, json_safe, read_document, to_document
from jobqueue.mongo.inserts import duplicate_field

NOW = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)
AS_CONNECTED = CodecOptions[dict[str, Any]](tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


def through_bson(document: dict[str, Any]) -> dict[str, Any]:
    return bson.decode(bson.encode(document), AS_CONNECTED)


def test_a_payload_is_not_copied_on_its_way_into_the_document() -> None:
    payload = {"a": [1]}

    document = to_document(Job(id=JobId("a"), payload=payload))

    assert document["payload"] is payload


def test_a_document_reads_back_as_the_job_it_was_made_of() -> None:
    job = Job(id=JobId("a"), payload={"$x": 1}, run_at=NOW, tags=["t"], seq=2**62, fault={"kind": "x"}, result=[1])

    assert read_document(through_bson(to_document(job))) == job


@pytest.mark.parametrize(
    "fields",
    [
        {"id": JobId("a")},
        {"id": JobId("a"), "payload": {"a": [1.5, None]}, "tags": ["t"], "priority": 9, "seq": 2**62, "insert_id": "i"},
        {"id": JobId("a"), "status": Status.SCHEDULED, "run_at": NOW, "timeout_seconds": 1.5, "fault": {"crash": True}},
        {
            "id": JobId("a"),
            "backoff": Backoff(base_seconds=1.0),
            "idempotency_key": "k",
            "fingerprint": "f",
            "tags": None,
        },
    ],
)
def test_a_job_is_the_same_whether_its_values_are_checked_or_known_to_be_right(fields: dict[str, Any]) -> None:
    checked, known = Job(**fields), Job.of(Job.defaults() | fields)

    assert known == checked
    assert list(vars(known)) == list(vars(checked))
    assert encode(known, JobView) == encode(checked, JobView)
    assert to_document(known) == to_document(checked)
    assert known.model_copy(update={"queue": "q"}) == checked.model_copy(update={"queue": "q"})


def test_every_field_is_stored_as_its_model_says() -> None:
    error = AttemptError(attempt=1, at=NOW, type="E", message="m", worker_id=WorkerId("w"))
    job = Job(
        id=JobId("a"),
        lease=Lease(id=LeaseId("l"), worker_id=WorkerId("w"), expires_at=NOW),
        errors=[error, error.model_copy(update={"worker_id": None})],
        progress=Progress(percent=1.5),
        backoff=Backoff(base_seconds=1.0),
        last_outcome=LastOutcome(lease_id=LeaseId("l"), kind="retry"),
        started_at=NOW,
        traceparent="00-1-2-01",
        redrives=1,
    )

    document = to_document(job)

    as_the_model_says = job.model_dump(by_alias=True, exclude={"id"})
    assert through_bson(document) == through_bson({"_id": "a", **as_the_model_says})


def test_a_time_of_another_zone_is_stored_as_the_moment_that_it_is() -> None:
    there = datetime(2026, 2, 2, 7, 30, tzinfo=timezone(timedelta(hours=2)))

    stored = through_bson(to_document(Job(id=JobId("a"), run_at=there)))

    assert read_document(stored).run_at == datetime(2026, 2, 2, 5, 30, tzinfo=UTC)


def test_missing_and_null_fields_read_as_their_defaults() -> None:
    job = read_document({"_id": "a", "queue": None, "errors": None, "lease": None})

    assert job == Job(id=JobId("a"))


def test_times_beyond_python_are_read_as_the_last_or_the_first_it_has() -> None:
    document = {"_id": "a", "runAt": DatetimeMS(10**15), "createdAt": DatetimeMS(-(10**15))}

    job = read_document(through_bson(document))

    assert job.run_at == datetime(9999, 12, 31, tzinfo=UTC)
    assert job.created_at == EPOCH


@pytest.mark.parametrize("value", [3, 3.0, bson.Int64(3), Decimal128("3")], ids=["int", "double", "long", "decimal"])
def test_a_whole_number_of_any_type_is_read_as_one(value: object) -> None:
    assert read_document({"_id": "a", "retryCount": value}).retry_count == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("_id", ObjectId()), ("status", "unknown"), ("retryCount", 1.5), ("runAt", "soon"), ("errors", "x"), ("lease", 1)],
)
def test_what_makes_no_sense_is_unreadable_and_the_reason_names_it(field: str, value: object) -> None:
    with pytest.raises(Unreadable, match=field):
        read_document({"_id": "a", field: value})


@pytest.mark.parametrize("value", [True, 1.5, float("nan"), float("inf"), "1", None])
def test_what_only_looks_like_a_number_is_none(value: object) -> None:
    assert not is_whole(value)


def test_infinities_and_nan_in_a_payload_become_text() -> None:
    assert json_safe([float("inf"), float("nan"), 1.5]) == ["inf", "nan", 1.5]


def test_a_message_is_cut_between_characters() -> None:
    assert cut("x" + "\u20ac" * 1000) == "x" + "\u20ac" * 682  # 1 + 682 * 3 = 2047 bytes
    assert cut("\ud800") == "\\ud800"


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ({"keyPattern": {"idempotencyKey": 1}}, "idempotencyKey"),
        ({"errmsg": "E11000 duplicate key error collection: d.jobs index: _id_ dup key: { _id: 1 }"}, "_id"),
        (
            {
                "errmsg": "E11000 duplicate key error collection: d.jobs index: unique_key_v1 dup key: "
                '{ uniqueKey: "E11000 duplicate key error collection: d.jobs index: _id_ dup key" }'
            },
            "uniqueKey",
        ),
        ({"errmsg": "something else"}, "_id"),
    ],
)
def test_a_duplicate_is_blamed_on_the_index_and_never_on_what_the_clients_value_says(
    error: dict[str, Any], field: str
) -> None:
    assert duplicate_field(error) == field


def test_status_is_stored_as_plain_text() -> None:
    assert type(to_document(Job(id=JobId("a"), status=Status.SCHEDULED))["status"]) is str
