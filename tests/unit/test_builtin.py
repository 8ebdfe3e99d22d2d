from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobqueue.builtin import BUILT_IN, simulation
from jobqueue.execution import execute
from jobqueue.job import Job, JobId, JsonValue
from jobqueue.outcome import Completed, Failed, Outcome, Retry
from jobqueue.settings import Settings
from jobqueue.tasks import Registry, TaskContext
from jobqueue.threads import ThreadRunner


@pytest.fixture
def threads() -> Iterator[ThreadRunner]:
    runner = ThreadRunner()
    yield runner
    runner.close()


async def run(job_type: str, payload: JsonValue = None, *, attempt: int = 1, threads: ThreadRunner) -> Outcome:
    job = Job(id=JobId("job-1"), type=job_type, payload=payload, retry_count=attempt)
    context = TaskContext(job, on_progress=lambda _: None)
    return await execute(simulation(Registry()).task_for(job_type), context, payload, threads=threads)


@pytest.mark.parametrize("payload", [None, 5, "text", [1, {"a.b": None}], {"$ref": 1}])
async def test_echo_returns_the_payload(payload: JsonValue, threads: ThreadRunner) -> None:
    assert await run("echo", payload, threads=threads) == Completed(payload)


async def test_sleep_sleeps(threads: ThreadRunner) -> None:
    assert await run("sleep", {"seconds": 0.01}, threads=threads) == Completed({"slept": 0.01})


@pytest.mark.parametrize(
    ("job_type", "payload", "what"),
    [
        ("sleep", None, "payload"),
        ("sleep", {}, "/seconds"),
        ("sleep", {"seconds": "1"}, "/seconds"),
        ("sleep", {"seconds": -1}, "/seconds"),
        ("sleep", {"seconds": 1, "second": 1}, "/second:"),
        ("flaky", None, "payload"),
        ("flaky", {"failures": 1.5}, "/failures"),
        ("fail", {"mesage": "x"}, "/mesage"),
    ],
)
async def test_a_wrong_payload_fails_for_good_and_says_what_is_wrong(
    job_type: str, payload: JsonValue, what: str, threads: ThreadRunner
) -> None:
    outcome = await run(job_type, payload, threads=threads)

    assert isinstance(outcome, Failed)
    assert what in outcome.error.message


async def test_fail_fails_for_now_or_for_good(threads: ThreadRunner) -> None:
    for_now = await run("fail", {"message": "no luck"}, threads=threads)
    for_good = await run("fail", {"permanent": True}, threads=threads)

    assert isinstance(for_now, Retry)
    assert for_now.error.message == "no luck"
    assert isinstance(await run("fail", threads=threads), Retry)
    assert isinstance(for_good, Failed)


async def test_flaky_fails_as_often_as_it_is_told(threads: ThreadRunner) -> None:
    outcomes = [await run("flaky", {"failures": 2}, attempt=attempt, threads=threads) for attempt in (1, 2, 3)]

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, Completed]


async def test_the_unstable_job_succeeds_on_the_last_attempt_that_a_job_has_by_default(
    threads: ThreadRunner,
) -> None:
    last = Settings.model_fields["max_retries"].default
    outcomes = [await run("unstable-job", attempt=attempt, threads=threads) for attempt in range(1, last + 1)]

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, Completed]


async def test_simulation_completes_every_type_that_has_no_task_and_says_that_it_only_pretends(
    threads: ThreadRunner,
) -> None:
    assert await run("email", {"to": "a"}, threads=threads) == Completed({"simulated": True})


def test_simulation_leaves_the_tasks_of_the_user_alone() -> None:
    registry = Registry()

    @registry.task("echo")
    def echo() -> str:
        return "mine"

    simulating = simulation(registry)

    assert simulating.task_for("echo").function is echo
    assert {each.name for each in simulating} == {each.name for each in BUILT_IN}
    assert {each.name for each in registry} == {"echo"}
