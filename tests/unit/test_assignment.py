"""What a supervisor tells its processes arrives as it was decided, whatever the environment says."""

from __future__ import annotations

import pytest

from jobqueue.assignment import Assignment
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
