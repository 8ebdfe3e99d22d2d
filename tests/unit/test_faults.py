"""Which attempts fail on purpose."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from jobqueue.context import TaskContext
from jobqueue.errors import ConfigurationError
from jobqueue.faults import AttemptLost, FaultyExecution
from jobqueue.job import Fault, Job, JobId
from jobqueue.outcome import Completed
from jobqueue.settings import load_settings
from jobqueue.tasks import Declaration, Task
from jobqueue.threads import ThreadRunner


async def nothing() -> None: ...


TASK = Task.of(nothing, Declaration("nothing"))


async def ending(execution: FaultyExecution, *, job: str = "j", attempt: int = 1, fault: Any = None) -> str:
    """How an attempt ends, in a word."""
    context = TaskContext(Job(id=JobId(job), retry_count=attempt, fault=fault), on_progress=lambda _: None)
    try:
        return type(await execution.execute(TASK, context, None, threads=ThreadRunner())).__name__
    except AttemptLost:
        return "AttemptLost"


def by_chance(probability: float, *, seed: int = 1) -> FaultyExecution:
    return FaultyExecution(Fault(probability=probability), random=Random(seed))


@pytest.mark.parametrize(
    ("fault", "endings"),
    [
        ({"failures": 2}, ["Retry", "Retry", "Completed"]),
        ({"failures": 0}, ["Completed"] * 3),
        ({"probability": 1}, ["Retry"] * 3),
        ({"probability": 0}, ["Completed"] * 3),
        ({"failures": 1, "probability": 1}, ["Retry"] * 3),
        ({"crash": True}, ["AttemptLost"] * 3),
        ({"loseLease": True}, ["AttemptLost"] * 3),
        ({"failures": 1, "crash": True}, ["AttemptLost", "Completed", "Completed"]),
        ({"probability": 0, "loseLease": True}, ["Completed"] * 3),
        ({"delaySeconds": 0.001}, ["Completed"] * 3),
        ({"failures": 2.0, "probability": 0}, ["Retry", "Retry", "Completed"]),  # as mongosh stores it
        ({"failures": "many"}, ["Completed"] * 3),  # not understood
        (None, ["Completed"] * 3),
    ],
)
async def test_a_fault_says_which_attempts_fail_and_how(fault: Any, endings: list[str]) -> None:
    execution = FaultyExecution(None, random=Random(1))

    assert [await ending(execution, attempt=attempt, fault=fault) for attempt in (1, 2, 3)] == endings


async def test_chance_hits_about_as_many_as_it_should() -> None:
    execution = by_chance(0.3)

    hits = [await ending(execution, job=f"j{number}") == "Retry" for number in range(2_000)]

    assert 500 < sum(hits) < 700  # 600 are expected; one in a million seeds is beyond


async def test_chance_depends_on_the_job_and_the_attempt_not_on_what_else_runs() -> None:
    one, other = by_chance(0.5), by_chance(0.5)
    jobs = [f"j{number}" for number in range(50)]

    forwards = [await ending(one, job=job) for job in jobs]
    backwards = [await ending(other, job=job) for job in reversed(jobs)]

    assert forwards == backwards[::-1]
    assert forwards != [await ending(one, job=job, attempt=2) for job in jobs]
    assert forwards != [await ending(by_chance(0.5, seed=2), job=job) for job in jobs]


async def test_a_job_with_a_fault_of_its_own_is_not_under_that_of_the_setting() -> None:
    execution = by_chance(1)

    assert await ending(execution) == "Retry"
    assert await ending(execution, fault={"failures": 0}) == Completed.__name__


@pytest.mark.parametrize(
    "fault", [{}, {"crash": True, "loseLease": True}, {"failures": -1}, {"probability": 1.1}, {"x": 1}]
)
def test_a_fault_that_says_nothing_or_too_much_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(fault)


def test_the_settings_take_a_fault_as_json_only_where_faults_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_FAULT", '{"probability": 0.25, "crash": true}')

    with pytest.raises(ConfigurationError, match=r"\n  JOBQUEUE_FAULT: needs JOBQUEUE_FAULTS=true$"):
        load_settings()
    monkeypatch.setenv("JOBQUEUE_FAULTS", "true")
    assert load_settings().fault == Fault(probability=0.25, crash=True)
    monkeypatch.setenv("JOBQUEUE_FAULT", '{"probabilty": 0.25}')
    with pytest.raises(ConfigurationError, match="JOBQUEUE_FAULT: probabilty: Extra inputs"):
        load_settings()


@pytest.mark.parametrize("value", ["often", "0.1", '"crash"', "[]", '{"probability": 0.1'])
def test_a_fault_that_is_no_object_is_told_what_it_must_be(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_FAULTS", "true")
    monkeypatch.setenv("JOBQUEUE_FAULT", value)

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert str(refused.value).splitlines()[1:] == [
        '  JOBQUEUE_FAULT: must be a JSON object, such as {"probability": 0.1}'
    ]
