"""What a supervisor tells its processes arrives as it was decided, whatever the environment says."""

from __future__ import annotations

import pytest

from jobqueue.assignment import Assignment
from jobqueue.job import Fault
from jobqueue.settings import load_settings


def test_the_settings_arrive_as_the_supervisor_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_FAULTS", "true")
    monkeypatch.setenv("JOBQUEUE_FAULT", '{"probability": 0.5}')
    monkeypatch.setenv("JOBQUEUE_QUEUES", "a,b")
    settings = load_settings(port=0, processes=2)
    sent = Assignment.of(
        settings.model_copy(update={"port": 4711}),
        mongodb_uri="mongodb://me:s3cr3t@db/",
        http=True,
        workers=True,
        modules=("shop",),
        simulate=False,
        folder="/tmp/x",
        numbers=(1, 2),
        number=2,
    ).model_dump_json()
    monkeypatch.setenv("JOBQUEUE_PORT", "1")
    monkeypatch.setenv("JOBQUEUE_QUEUES", "c")
    monkeypatch.setenv("JOBQUEUE_MONGODB_URI", "mongodb://elsewhere/")

    received = Assignment.model_validate_json(sent)

    assert received.settings == settings.model_copy(update={"port": 4711})
    assert (received.mongodb_uri, received.number) == ("mongodb://me:s3cr3t@db/", 2)
    assert "\n" not in sent


@pytest.mark.parametrize("fault", [Fault(crash=True), Fault(crash=True, failures=0), Fault(lose_lease=True), None])
def test_a_fault_fails_the_same_attempts_on_the_other_side(
    monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    sent = Assignment.of(
        load_settings(processes=2, faults=True, fault=fault),
        mongodb_uri="mongodb://db/",
        http=True,
        workers=True,
        modules=(),
        simulate=False,
        folder="/tmp/x",
        numbers=(1, 2),
        number=2,
    ).model_dump_json()
    monkeypatch.setenv("JOBQUEUE_FAULT", '{"failures": 1}')

    received = Assignment.model_validate_json(sent).settings.fault

    assert received == fault
    if fault is not None and received is not None:
        assert received.fails(1, chance=0.5) == fault.fails(1, chance=0.5)
