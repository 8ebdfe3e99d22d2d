"""One suite, five stores: so that none of them can lie.

mongomock is quick and knows no network; the embedded server is a real one, with both drivers, and once more taken for
a MongoDB, so that what is sent to one (hints, partial indexes, findAndModify, snapshot reads) is sent to some server; a
MongoDB is used where JOBQUEUE_TEST_MONGODB_URI names one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal
from uuid import uuid4

import pytest
from bench import LOGS_KEPT, NOW, Bench, chosen_backend
from bson.codec_options import CodecOptions
from faults import Faults, FaultyClient
from hand_clock import HandClock
from mongomock_motor import AsyncMongoMockClient
from pymongo import MongoClient

import jobqueue.mongo.store
from jobqueue.driver import connect
from jobqueue.mongo import MongoJobRepository
from jobqueue.repository import Features
from jobqueue.settings import Settings

MOCK = "mongomock"
MISTAKEN = "embedded-as-mongodb"
BACKENDS = (MOCK, "embedded-motor", "embedded-pymongo", MISTAKEN, "mongodb")

MOCK_CANNOT = {
    "test_a_delete_whose_answer_is_lost_is_undone_or_counted": "it has no transactions",
    "test_nothing_is_rescued_that_is_not_over_by_the_clock_of_the_present_primary": "it has no clock of its own",
    "test_a_signal_reaches_other_processes_and_says_what_waits": "it has no change streams",
    "test_a_signal_of_many_jobs_names_none_of_them": "it has no change streams",
    "test_a_signal_that_cannot_be_understood_names_no_jobs": "it has no change streams",
    "test_a_job_tells_of_itself_when_it_is_stored": "it has no change streams",
    "test_a_crowd_ends_the_stream": "it has no change streams",
    "test_jobs_that_are_not_due_or_are_stored_beside_workers_are_not_heard_of": "it has no change streams",
    "test_a_job_that_was_made_by_hand_is_heard_of_once_it_can_be_understood": "it has no change streams",
    "test_a_large_job_is_heard_of_and_claimed_whole": "it has no change streams",
    "test_what_was_heard_of_is_claimed_as_if_it_had_been_read": "it has no change streams",
    "test_a_document_that_refuses_a_claim_fails_and_its_neighbours_run": "its $inc on text is a TypeError",
    "test_a_document_that_refuses_a_claim_and_is_cancelled_meanwhile_stays_cancelled": "the same",
    "test_an_outcome_that_the_server_cannot_take_harms_no_other": "it knows no largest document",
    "test_errors_that_are_no_list_do_not_keep_an_outcome_from_being_written": "its $push onto null succeeds",
    "test_an_expired_job_whose_errors_are_no_list_is_rescued_too": "its $push onto null succeeds",
    "test_an_index_of_our_name_with_another_definition_is_a_conflict": "its indexes lose their partial filters",
    "test_preparing_twice_changes_nothing": "its indexes lose their partial filters",
    "test_indexes_that_are_there_need_no_right_to_make_them": "its indexes lose their partial filters",
    "test_missing_indexes_are_noticed": "its indexes cannot be dropped by name in a collection that is proxied",
    "test_a_missing_index_that_may_not_be_made_is_named": "the same",
    "test_work_is_found_when_the_index_that_is_named_is_missing": "the same",
    "test_ids_that_are_no_strings_become_strings": "it cannot hold an id of every BSON type",
    "test_what_looks_like_a_database_reference_comes_back_as_it_went_in": "it never encodes what it keeps",
}
"""What mongomock cannot do, by the test that shows it."""

Mode = Literal["auto", "single", "batch"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the store under test; skips what it cannot do."""
    name = chosen_backend(request)
    if name == MISTAKEN:
        request.getfixturevalue("monkeypatch").setattr(jobqueue.mongo.store, "EMBEDDED_SET", "nobody's")
    if name == MOCK and (reason := MOCK_CANNOT.get(request.node.originalname)):
        pytest.skip(f"mongomock: {reason}")
    return name


@pytest.fixture
def mongodb_uri() -> str:
    """A real MongoDB, if there is one."""
    uri = os.environ.get("JOBQUEUE_TEST_MONGODB_URI")
    if uri is None:
        pytest.skip("JOBQUEUE_TEST_MONGODB_URI is not set")
    return uri


@pytest.fixture
def uri(backend: str, request: pytest.FixtureRequest) -> str:
    """Where the server of this backend is."""
    return str(request.getfixturevalue("mongodb_uri" if backend == "mongodb" else "server_uri"))


@pytest.fixture
async def client(backend: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A client of the store, closed by the repository that uses it."""
    if backend == MOCK:
        request.getfixturevalue("mock_takes_sort")
        yield AsyncMongoMockClient(tz_aware=True)
        return
    driver = "pymongo" if backend == "embedded-pymongo" else "motor"
    yield connect(Settings(driver=driver), request.getfixturevalue("uri"))


@pytest.fixture
def claim_mode() -> Mode:
    """How jobs are claimed; tests override it."""
    return "auto"


@pytest.fixture
def client_seconds() -> float:
    """How long a write is tried: longer than the slowest machine needs. Tests of what comes after that override it."""
    return 30.0


@pytest.fixture
def repository_on(backend: str, claim_mode: Mode, client_seconds: float) -> Callable[..., MongoJobRepository]:
    """Makes a repository on a client, as the composition root does."""

    def build(client: Any, database_name: str, clock: HandClock) -> MongoJobRepository:
        return MongoJobRepository(
            client,
            database_name,
            claim_mode=claim_mode,
            clock=clock,
            features=Features(name=MOCK, version="") if backend == MOCK else None,
            client_seconds=client_seconds,
            logs_kept=LOGS_KEPT,
        )

    return build


@pytest.fixture
async def bench(
    backend: str,
    client: Any,
    repository_on: Callable[..., MongoJobRepository],
    request: pytest.FixtureRequest,
) -> AsyncIterator[Bench]:
    """A repository on an empty database, which is dropped afterwards."""
    database_name, faults, clock = f"test-{uuid4().hex}", Faults(), HandClock(NOW)
    jobs = repository_on(FaultyClient(client, faults), database_name, clock)
    await jobs.prepare()
    faults.calls.clear()
    raw = client.get_database(database_name, codec_options=CodecOptions(tz_aware=True))["jobs"]
    yield Bench(jobs, raw, backend=backend, faults=faults, clock=clock)
    await jobs.aclose()
    if backend != MOCK:
        with MongoClient[dict[str, object]](request.getfixturevalue("uri")) as dropper:
            dropper.drop_database(database_name)
