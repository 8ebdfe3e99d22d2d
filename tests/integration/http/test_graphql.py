"""Queries and mutations over HTTP: what they answer, how they refuse, and what they cost the store."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from structlog.testing import capture_logs

from jobqueue.api.errors import TABLE
from jobqueue.api.graphql.errors import CODES
from jobqueue.api.graphql.types import STATES, JobState
from jobqueue.errors import OutcomeUnknown, QueueFull, Unavailable
from jobqueue.job import Backoff, Lease, LeaseId, LogLine, Status, WorkerId
from jobqueue.repository import WorkerRecord
from jobqueue.service import JobService

if TYPE_CHECKING:
    from memory_jobs import MemoryJobs, SilentDispatcher

Client = TestClient[web.Request, web.Application]
Answer = dict[str, Any]
GRAPHQL_JSON = "application/graphql-response+json"


async def ask(client: Client, query: str, **variables: Any) -> Answer:
    """The whole answer."""
    response = await client.post("/graphql", json={"query": query, "variables": variables})
    assert response.status == 200, await response.text()
    assert response.content_type == "application/json"
    answer: Answer = await response.json()
    return answer


async def data(client: Client, query: str, **variables: Any) -> Any:
    """What was asked for, when nothing went wrong."""
    answer = await ask(client, query, **variables)
    assert "errors" not in answer, answer
    return answer["data"]


async def error(client: Client, query: str, **variables: Any) -> Answer:
    """The one error of an answer."""
    (found,) = (await ask(client, query, **variables))["errors"]
    shown: Answer = found
    return shown


async def enqueue(client: Client, *job_ids: str, **fields: Any) -> None:
    for job_id in job_ids:
        response = await client.post("/jobs", json={"id": job_id, **fields})
        assert response.status == 201


# Enqueue


async def test_a_task_is_enqueued_and_answered_as_the_job_that_rest_shows(client: Client) -> None:
    answer = await data(client, 'mutation { Enqueue(task: "email") { id task status attempts queue createdAt } }')

    created = answer["Enqueue"]
    job = await (await client.get(f"/jobs/{created['id']}")).json()
    assert created == {
        "id": job["id"],
        "task": "email",
        "status": "PENDING",
        "attempts": 0,
        "queue": "default",
        "createdAt": job["createdAt"],
    }


ENQUEUE_ALL = """
mutation ($task: String!, $payload: JSON, $id: String, $queue: String, $priority: Int, $maxRetries: Int,
    $runAt: DateTime, $timeoutSeconds: Float, $tags: [String!]) {
  Enqueue(task: $task, payload: $payload, id: $id, queue: $queue, priority: $priority, maxRetries: $maxRetries,
      runAt: $runAt, timeoutSeconds: $timeoutSeconds, tags: $tags) {
    id task payload queue priority maxRetries runAt timeoutSeconds tags
  }
}
"""


async def test_every_argument_arrives(client: Client) -> None:
    sent = {
        "id": "r-1", "task": "report", "payload": {"$a.b": [1, 2.5, None, {"": "ü"}]}, "queue": "slow", "priority": -5,
        "maxRetries": 7, "runAt": "2199-02-02T05:30:00.123Z", "timeoutSeconds": 2.5, "tags": ["a", "b"],
    }  # fmt: skip

    assert (await data(client, ENQUEUE_ALL, **sent))["Enqueue"] == sent


async def test_how_a_job_waits_and_fails_on_purpose_is_shown_as_by_rest(client: Client, jobs: MemoryJobs) -> None:
    await client.post("/jobs", json={"id": "a", "backoff": {"baseSeconds": 2.5}})
    jobs.put("a", fault={"failures": 1})

    answer = await data(client, '{ Job(id: "a") { backoff { baseSeconds maxSeconds } fault } }')

    assert answer["Job"] == {"backoff": {"baseSeconds": 2.5, "maxSeconds": None}, "fault": {"failures": 1}}


async def test_the_log_of_a_job_is_that_of_rest(client: Client, jobs: MemoryJobs) -> None:
    await client.post("/jobs", json={"id": "a"})
    moment = jobs.jobs["a"].created_at
    jobs.lines["a"] = [LogLine(at=moment, attempt=1, level="info", message="m", fields={"n": [1, None]})]

    answer = await data(client, '{ JobLogs(id: "a") { at attempt level message fields } }')

    assert answer["JobLogs"] == await (await client.get("/jobs/a/logs")).json()


async def test_the_log_of_no_job_is_not_found(client: Client) -> None:
    refused = await error(client, '{ JobLogs(id: "a") { message } }')

    assert refused["extensions"]["code"] == "NOT_FOUND"


async def test_what_is_null_or_left_out_has_its_default(client: Client) -> None:
    arguments = {"task": "a", "payload": None, "id": None, "queue": None, "maxRetries": None, "tags": None}

    job = (await data(client, ENQUEUE_ALL, **arguments))["Enqueue"]

    assert (job["queue"], job["priority"], job["maxRetries"], job["payload"], job["tags"]) == (
        "default",
        0,
        3,
        None,
        [],
    )


async def test_a_job_may_be_put_off(client: Client) -> None:
    job = (await data(client, 'mutation { Enqueue(task: "a", delaySeconds: 60) { id status } }'))["Enqueue"]

    assert job["status"] == "PENDING"
    assert (await (await client.get(f"/jobs/{job['id']}")).json())["status"] == "scheduled"


WRONG = {
    'task: "a b"': ["/task"],
    'task: ""': ["/task"],
    'task: "a", priority: 1001': ["/priority"],
    'task: "a", maxRetries: 0, tags: [""]': ["/maxRetries", "/tags/0"],
    'task: "a", runAt: "tomorrow"': ["/runAt"],
    'task: "a", runAt: "2199-02-02T05:30:00Z", delaySeconds: 1': ["/runAt"],
    'task: "a", payload: {n: 9223372036854775808}': ["/payload/n"],
    'task: "a", payload: [1e400]': ["/payload/0"],
    f'task: "a", payload: [{"9" * 5000}]': ["/payload/0"],
    'task: "a", payload: "\\ud800"': [],
    f'task: "a", payload: {"[" * 65}{"]" * 65}': ["/payload" + "/0" * 64],
}


@pytest.mark.parametrize("arguments", WRONG, ids=lambda text: text[:40])
async def test_wrong_values_are_bad_input_that_names_the_arguments(client: Client, arguments: str) -> None:
    refused = await error(client, f"mutation {{ Enqueue({arguments}) {{ id }} }}")

    assert refused["extensions"]["code"] == "BAD_INPUT"
    assert [each["pointer"] for each in refused["extensions"].get("errors", [])] == WRONG[arguments]
    assert len(refused["message"]) <= 500


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ('{"a": 1, "a": 2}', "/variables/payload/a"),
        ('{"a": "\\ud800"}', "/variables/payload/a"),
        ('{"a\\u0000": 1}', "/variables/payload/a\0"),
        ("[1e400]", "/variables/payload/0"),
        ('{"n": -9223372036854775809}', "/variables/payload/n"),
    ],
)
async def test_values_in_variables_are_checked_where_they_come_in(client: Client, payload: str, pointer: str) -> None:
    query = 'mutation ($payload: JSON) { Enqueue(task: \\"a\\", payload: $payload) { id } }'
    body = f'{{"query": "{query}", "variables": {{"payload": {payload}}}}}'

    response = await client.post("/graphql", data=body, headers={"Content-Type": "application/json"})

    (refused,) = (await response.json())["errors"]
    assert response.status == 400
    assert refused["extensions"]["code"] == "BAD_INPUT"
    assert [each["pointer"] for each in refused["extensions"]["errors"]] == [pointer]


async def test_a_payload_as_deep_as_rest_takes_it_is_taken_as_a_variable(client: Client) -> None:
    payload: Any = 1
    for _ in range(64):
        payload = [payload]
    many = "mutation ($jobs: [NewJob!]!) { EnqueueMany(jobs: $jobs) { accepted } }"

    alone = await data(client, ENQUEUE_ALL, task="a", payload=payload)
    among_others = await data(client, many, jobs=[{"task": "a", "payload": payload}])
    deeper = await error(client, ENQUEUE_ALL, task="a", payload=[payload])

    assert alone["Enqueue"]["payload"] == payload
    assert among_others["EnqueueMany"]["accepted"] == 1
    assert deeper["extensions"]["errors"][0]["detail"] == "is nested deeper than 64 levels"


async def test_a_taken_id_is_a_conflict_that_names_the_job(client: Client) -> None:
    await enqueue(client, "a")

    refused = await error(client, 'mutation { Enqueue(task: "x", id: "a") { id } }')

    assert refused["extensions"] == {"code": "CONFLICT", "jobId": "a", "state": "pending"}


async def test_enqueueing_again_with_the_same_key_answers_with_the_first_job(client: Client, jobs: MemoryJobs) -> None:
    query = 'mutation { Enqueue(task: "email", idempotencyKey: "order-42") { id status } }'
    first = (await data(client, query))["Enqueue"]
    jobs.put(first["id"], status=Status.COMPLETED)

    second = (await data(client, query))["Enqueue"]

    assert second == {"id": first["id"], "status": "COMPLETED"}
    assert len(jobs.jobs) == 1


async def test_the_first_job_of_a_key_is_answered_also_where_its_id_comes_again(
    client: Client, jobs: MemoryJobs
) -> None:
    query = 'mutation { Enqueue(task: "email", id: "a", idempotencyKey: "order-42") { id attempts } }'
    await data(client, query)
    jobs.put("a", retry_count=2)

    assert await data(client, query) == {"Enqueue": {"id": "a", "attempts": 2}}


@pytest.mark.parametrize("key", ['"other"', "null"])
async def test_a_taken_id_is_a_conflict_whatever_other_key_comes_with_it(client: Client, key: str) -> None:
    await enqueue(client, "a")

    refused = await error(client, f'mutation {{ Enqueue(task: "x", id: "a", idempotencyKey: {key}) {{ id }} }}')

    assert refused["extensions"]["code"] == "CONFLICT"


async def test_of_many_jobs_with_one_key_the_later_ones_are_told_the_first(client: Client) -> None:
    answer = await data(
        client,
        """mutation { EnqueueMany(jobs: [{task: "a", idempotencyKey: "k"}, {task: "a", idempotencyKey: "k"}]) {
            items { id refused { code jobId } } } }""",
    )

    first, second = answer["EnqueueMany"]["items"]
    assert second == {"id": None, "refused": {"code": "CONFLICT", "jobId": first["id"]}}


async def test_many_jobs_are_judged_one_by_one(client: Client) -> None:
    answer = await data(
        client,
        """mutation { EnqueueMany(jobs: [{task: "a", id: "1"}, {task: "no name"}, {task: "b", id: "1"}]) {
            accepted rejected items { index id refused { code message jobId errors { pointer detail } } } } }""",
    )

    many = answer["EnqueueMany"]
    assert (many["accepted"], many["rejected"]) == (1, 2)
    assert many["items"][0] == {"index": 0, "id": "1", "refused": None}
    assert many["items"][1]["refused"]["code"] == "BAD_INPUT"
    assert many["items"][1]["refused"]["errors"][0]["pointer"] == "/task"
    assert (many["items"][2]["refused"]["code"], many["items"][2]["refused"]["jobId"]) == ("CONFLICT", "1")


# Look


async def test_jobs_come_in_the_order_of_their_creation_the_newest_500(client: Client) -> None:
    for start in (0, 300):
        await client.post("/jobs/bulk", json=[{"id": f"job-{number}"} for number in range(start, start + 300)])

    jobs = (await data(client, "{ Jobs { id } }"))["Jobs"]

    assert [job["id"] for job in jobs] == [f"job-{number}" for number in range(100, 600)]


async def test_a_job_shows_everything_that_became_of_it(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a", payload={"n": 1}, tags=["t"])
    moment = jobs.jobs["a"].created_at
    lease = Lease(id=LeaseId("secret"), worker_id=WorkerId("w"), expires_at=moment)
    failed = [{"attempt": 1, "at": moment, "type": "Boom", "message": "it broke", "workerId": "w"}]
    jobs.jobs["a"] = jobs.jobs["a"].model_validate(
        jobs.jobs["a"].model_dump(by_alias=True)
        | {"status": "processing", "retryCount": 2, "lease": lease, "errors": failed, "redrives": 1}
        | {"progress": {"percent": 50, "message": "half"}, "startedAt": moment, "result": [1]}
    )

    job = (
        await data(
            client,
            """{ Job(id: "a") { status attempts redrives payload result tags progress { percent message }
                lease { workerId expiresAt } errors { attempt at type message workerId } startedAt finishedAt } }""",
        )
    )["Job"]

    shown_at = (await (await client.get("/jobs/a")).json())["startedAt"]
    assert job == {
        "status": "RUNNING",
        "attempts": 2,
        "redrives": 1,
        "payload": {"n": 1},
        "result": [1],
        "tags": ["t"],
        "progress": {"percent": 50, "message": "half"},
        "lease": {"workerId": "w", "expiresAt": shown_at},
        "errors": [{"attempt": 1, "at": shown_at, "type": "Boom", "message": "it broke", "workerId": "w"}],
        "startedAt": shown_at,
        "finishedAt": None,
    }


@pytest.mark.parametrize("job_id", ["nobody", "", "x" * 129, "a\0", "a b"])
async def test_a_job_that_is_not_there_is_null(client: Client, job_id: str) -> None:
    assert await data(client, "query ($id: String!) { Job(id: $id) { id } }", id=job_id) == {"Job": None}


def test_every_state_of_a_job_has_its_word() -> None:
    assert STATES.keys() == set(Status)
    assert set(STATES.values()) == set(JobState)


async def test_job_status_counts_every_job_once(client: Client, jobs: MemoryJobs) -> None:
    states = [*Status, Status.PENDING, Status.FAILED, Status.FAILED]
    for number, status in enumerate(states):
        await enqueue(client, str(number))
        jobs.put(str(number), status=status)

    counts = (await data(client, "{ JobStatus { pending running failed completed cancelled } }"))["JobStatus"]

    # scheduled and pending are both waiting: 2 + 1
    assert counts == {"pending": 3, "running": 1, "failed": 3, "completed": 1, "cancelled": 1}
    assert sum(counts.values()) == len(states)


async def test_queues_and_workers_are_shown(client: Client, jobs: MemoryJobs, a_worker: WorkerRecord) -> None:
    jobs.live_workers = [a_worker]
    await enqueue(client, "a", queue="slow")

    answer = await data(client, "{ Queues { name depth pending oldestAgeSeconds } Workers { id host slots } }")

    assert answer["Queues"] == [
        {"name": "slow", "depth": 1, "pending": 1, "oldestAgeSeconds": answer["Queues"][0]["oldestAgeSeconds"]}
    ]
    assert answer["Workers"] == [{"id": "w1", "host": "example", "slots": 10}]


async def test_values_beyond_graphql_numbers_do_not_hide_a_job(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a")
    jobs.put("a", priority=2**40, retry_count=-(2**40), timeout_seconds=float("inf"), payload=float("nan"))

    job = (await data(client, '{ Job(id: "a") { priority attempts timeoutSeconds payload } }'))["Job"]

    assert job == {"priority": 2**31 - 1, "attempts": -(2**31), "timeoutSeconds": None, "payload": None}


# Pages


async def walk(client: Client, arguments: str, *, first: int) -> list[str]:
    """The ids of all pages, one after another."""
    query = f"""query ($after: String) {{ jobsConnection(first: {first}, after: $after, {arguments}) {{
        nodes {{ id }} edges {{ cursor node {{ id }} }} pageInfo {{ hasNextPage endCursor startCursor }} }} }}"""
    found: list[str] = []
    after: str | None = None
    while True:
        page = (await data(client, query, after=after))["jobsConnection"]
        assert [edge["node"] for edge in page["edges"]] == page["nodes"]
        assert len(page["nodes"]) <= first
        found += [node["id"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found


@pytest.mark.parametrize("first", [1, 2, 3, 7, 50])
async def test_pages_have_no_gaps_and_no_repeats_whatever_states_they_mix(
    client: Client, jobs: MemoryJobs, first: int
) -> None:
    mixed = [Status.SCHEDULED, Status.PENDING, Status.FAILED, Status.PENDING, Status.SCHEDULED, Status.SCHEDULED]
    for number in range(14):
        await enqueue(client, str(number))
        jobs.put(str(number), status=mixed[number % len(mixed)])
    waiting = [str(number) for number in reversed(range(14)) if mixed[number % len(mixed)] is not Status.FAILED]

    assert await walk(client, "status: PENDING", first=first) == waiting
    assert await walk(client, "", first=first) == [str(number) for number in reversed(range(14))]


async def test_a_page_goes_on_from_any_of_its_edges(client: Client) -> None:
    await enqueue(client, "a", "b", "c")
    edges = (await data(client, "{ jobsConnection { edges { cursor } } }"))["jobsConnection"]["edges"]

    rest = await data(
        client, "query ($c: String!) { jobsConnection(after: $c) { nodes { id } } }", c=edges[0]["cursor"]
    )

    assert [node["id"] for node in rest["jobsConnection"]["nodes"]] == ["b", "a"]


async def test_filters_narrow_a_page(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a", type="email", queue="slow", tags=["x"])
    await enqueue(client, "b", type="email")
    await enqueue(client, "c", queue="slow")
    jobs.put("b", status=Status.COMPLETED)
    after, before = "1971-01-01T00:00:00Z", "1970-01-01T00:00:00Z"

    assert await walk(client, 'type: "email"', first=5) == ["b", "a"]
    assert await walk(client, 'queue: "slow"', first=5) == ["c", "a"]
    assert await walk(client, 'tag: "x"', first=5) == ["a"]
    assert await walk(client, 'status: COMPLETED, type: "email"', first=5) == ["b"]
    assert await walk(client, f'createdAfter: "{after}", queue: null', first=5) == ["c", "b", "a"]
    assert await walk(client, f'createdBefore: "{before}"', first=5) == []


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ("first: 0", "/first"),
        ("first: 501", "/first"),
        ("first: -1", "/first"),
        ('after: "AAAA"', "/after"),
        ('type: "a b"', "/type"),
        ('createdAfter: "today"', "/createdAfter"),
    ],
)
async def test_wrong_filters_are_bad_input(client: Client, arguments: str, pointer: str) -> None:
    refused = await error(client, f"{{ jobsConnection({arguments}) {{ nodes {{ id }} }} }}")

    assert refused["extensions"]["code"] == "BAD_INPUT"
    assert [each["pointer"] for each in refused["extensions"]["errors"]] == [pointer]


# What it costs


async def test_many_jobs_by_id_are_one_look_at_the_store(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, *(str(number) for number in range(50)))
    query = " ".join(f'a{number}: Job(id: "{number}") {{ id }}' for number in range(50))

    answer = await data(client, f"{{ {query} }}")

    assert [job["id"] for job in answer.values()] == [str(number) for number in range(50)]
    assert jobs.looks == 1


async def test_the_same_list_or_count_is_made_once(
    client: Client, jobs: MemoryJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = []
    make = jobs.list

    async def observed(which: Any, **how: Any) -> Any:
        lists.append((which, how["limit"]))
        return await make(which, **how)

    monkeypatch.setattr(jobs, "list", observed)

    await data(client, "{ a: JobStatus { failed } b: JobStatus { pending } c: Jobs { id } d: Jobs { status } }")

    assert jobs.looks == 1
    assert len(lists) == 1


async def test_for_an_id_that_no_job_can_have_nobody_is_asked(client: Client, jobs: MemoryJobs) -> None:
    await data(client, "query ($id: String!) { Job(id: $id) { id } }", id="x" * 129)

    assert jobs.looks == 0


async def test_a_message_does_not_repeat_a_query_however_long_it_is(client: Client) -> None:
    assert len((await error(client, f"{{ {'x' * 2000} }}"))["message"]) == 500


async def test_a_later_look_in_the_same_operation_is_a_new_one(client: Client) -> None:
    answer = await data(
        client,
        'mutation { Enqueue(task: "a", id: "a") { status } Cancel(id: "a") { status } Retry(id: "a") { status } }',
    )

    assert [job["status"] for job in answer.values()] == ["PENDING", "CANCELLED", "PENDING"]


# Change


async def test_a_waiting_job_is_cancelled_and_a_running_one_asked_to_stop(
    client: Client, jobs: MemoryJobs, dispatcher: SilentDispatcher
) -> None:
    await enqueue(client, "a", "b")
    jobs.put("b", status=Status.PROCESSING)

    answer = await data(
        client, 'mutation { a: Cancel(id: "a") { status } b: Cancel(id: "b") { status cancelRequestedAt } }'
    )

    assert answer["a"] == {"status": "CANCELLED"}
    assert answer["b"]["status"] == "RUNNING"
    assert answer["b"]["cancelRequestedAt"] is not None
    assert dispatcher.interrupted == ["b"]


async def test_a_job_is_put_back_and_deleted(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a", "b")
    jobs.put("a", status=Status.FAILED)
    jobs.put("b", status=Status.CANCELLED)

    answer = await data(
        client,
        'mutation { a: RetryDeadLetter(id: "a") { status redrives } b: Retry(id: "b") { status } Delete(id: "b") }',
    )

    assert answer == {"a": {"status": "PENDING", "redrives": 1}, "b": {"status": "PENDING"}, "Delete": "b"}
    assert "b" not in jobs.jobs


async def test_dead_letters_are_put_back_by_filter_or_all(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a", "b", type="email")
    await enqueue(client, "c", "d", "e")
    for job_id in jobs.jobs:
        jobs.put(job_id, status=Status.FAILED)

    some = await data(client, 'mutation { RetryDeadLetters(type: "email", limit: 1) { requeued more } }')
    rest = await data(client, "mutation { RetryDeadLetters(all: true) { requeued more } }")
    refused = await error(client, "mutation { RetryDeadLetters { requeued } }")

    assert some["RetryDeadLetters"] == {"requeued": 1, "more": True}
    assert rest["RetryDeadLetters"] == {"requeued": 4, "more": False}
    assert refused["extensions"]["code"] == "BAD_INPUT"


async def test_dead_letters_are_removed_by_filter_and_all_together(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a", "b", "c")
    for job_id in "ab":
        jobs.put(job_id, status=Status.FAILED)

    some = await data(client, "mutation { DeleteDeadLetters(all: true, limit: 1) { deleted more } }")
    before = await data(
        client, 'mutation { DeleteDeadLetters(createdBefore: "2000-01-01T00:00:00Z") { deleted more } }'
    )
    rest = await data(client, "mutation { DeleteDeadLetters(all: true) { deleted more } }")
    refused = await error(client, "mutation { DeleteDeadLetters { deleted } }")

    assert some["DeleteDeadLetters"] == {"deleted": 1, "more": True}
    assert before["DeleteDeadLetters"] == {"deleted": 0, "more": False}
    assert rest["DeleteDeadLetters"] == {"deleted": 1, "more": False}
    assert refused["extensions"]["code"] == "BAD_INPUT"
    assert set(jobs.jobs) == {"c"}


async def test_a_job_takes_its_own_back_off_and_its_faults_are_judged_as_in_rest(
    client: Client, jobs: MemoryJobs
) -> None:
    await data(client, 'mutation { Enqueue(task: "email", id: "a", backoff: {baseSeconds: 2, maxSeconds: 8}) { id } }')
    wrong = await error(client, 'mutation { Enqueue(task: "email", backoff: {baseSeconds: "2"}) { id } }')
    off = await error(client, 'mutation { Enqueue(task: "email", fault: {failures: 1}) { id } }')

    assert jobs.jobs["a"].backoff == Backoff(base_seconds=2, max_seconds=8)
    assert [problem["pointer"] for problem in wrong["extensions"]["errors"]] == ["/backoff/baseSeconds"]
    assert [problem["pointer"] for problem in off["extensions"]["errors"]] == ["/fault"]
    assert "JOBQUEUE_FAULTS" in off["extensions"]["errors"][0]["detail"]


@pytest.mark.parametrize("verb", ["Cancel", "Retry", "Delete", "RetryDeadLetter"])
async def test_a_job_that_is_not_there_cannot_be_changed(client: Client, verb: str) -> None:
    fields = "" if verb == "Delete" else "{ id }"

    for job_id in ("nobody", "x" * 200):
        refused = await error(client, f'mutation {{ {verb}(id: "{job_id}") {fields} }}')
        assert refused["extensions"]["code"] == "NOT_FOUND"
        assert refused["path"] == [verb]


@pytest.mark.parametrize(("verb", "status"), [("Cancel", "completed"), ("Retry", "pending"), ("Delete", "processing")])
async def test_a_move_that_is_not_allowed_is_a_conflict_that_tells_the_state(
    client: Client, jobs: MemoryJobs, verb: str, status: str
) -> None:
    await enqueue(client, "a")
    jobs.put("a", status=Status(status))

    refused = await error(client, f'mutation {{ {verb}(id: "a") {"" if verb == "Delete" else "{ id }"} }}')

    assert refused["extensions"] == {"code": "CONFLICT", "jobId": "a", "state": status}


# Errors


def test_every_status_of_the_table_of_errors_has_its_code() -> None:
    assert {row.status for row in TABLE.values()} <= CODES.keys()


@pytest.mark.parametrize(
    ("broken", "more"),
    [
        (Unavailable("mongodb://user:secret@db is away"), {"retryAfterSeconds": 2}),
        (OutcomeUnknown("a", "mongodb://user:secret@db is away"), {"retryAfterSeconds": 2, "jobId": "a"}),
        (QueueFull("too much", retry_after_seconds=7), {"retryAfterSeconds": 7}),
    ],
)
async def test_a_store_that_cannot_serve_is_unavailable_and_says_when_to_try_again(
    client: Client, jobs: MemoryJobs, broken: Exception, more: Answer
) -> None:
    jobs.broken = broken

    refused = await error(client, "{ JobStatus { failed } }")

    assert refused["extensions"] == {"code": "UNAVAILABLE", "requestId": refused["extensions"]["requestId"], **more}
    assert "secret" not in json.dumps(refused)


async def test_what_goes_wrong_here_tells_nothing_but_the_request_id(client: Client, jobs: MemoryJobs) -> None:
    jobs.broken = KeyError("mongodb://user:secret@db")

    response = await client.post(
        "/graphql", json={"query": '{ Job(id: "a") { id } }'}, headers={"X-Request-Id": "request-1"}
    )

    answer = await response.json()
    assert answer["data"] == {"Job": None}
    assert answer["errors"] == [
        {
            "message": "the log has it under the request id",
            "locations": [{"line": 1, "column": 3}],
            "path": ["Job"],
            "extensions": {"code": "INTERNAL", "requestId": "request-1"},
        }
    ]


@pytest.mark.parametrize("broken", [KeyError("broken"), Unavailable("away")], ids=lambda error: type(error).__name__)
async def test_an_error_that_many_fields_share_is_logged_once(
    client: Client, jobs: MemoryJobs, broken: Exception
) -> None:
    jobs.broken = broken
    fields = " ".join(f'f{number}: Job(id: "{number}") {{ id }}' for number in range(20))

    with capture_logs() as logged:
        answer = await ask(client, f"{{ {fields} }}")

    assert len(answer["errors"]) == 20
    assert [entry["field"] for entry in logged] == ["f0"]


async def test_a_refusal_of_a_full_queue_is_left_to_who_refuses_since_there_may_be_thousands(
    client: Client, jobs: MemoryJobs
) -> None:
    jobs.broken = QueueFull("too much")

    with capture_logs() as logged:
        await error(client, 'mutation { Enqueue(task: "a") { id } }')

    assert [entry["log_level"] for entry in logged] == ["debug"]


async def test_while_the_service_stops_nothing_is_enqueued_and_looking_goes_on(
    client: Client, service: JobService
) -> None:
    await enqueue(client, "a")
    service.stop_accepting()

    refused = await error(client, 'mutation { Enqueue(task: "a") { id } }')

    assert refused["extensions"]["code"] == "UNAVAILABLE"
    assert await data(client, '{ Job(id: "a") { id } }') == {"Job": {"id": "a"}}


async def test_one_failing_field_leaves_the_others_their_data(client: Client, jobs: MemoryJobs) -> None:
    await enqueue(client, "a")

    answer = await ask(client, 'query { Job(id: "a") { id } wrong: Job(id: "nobody") { id } Queues { name } }')

    assert answer == {"data": {"Job": {"id": "a"}, "wrong": None, "Queues": [{"name": "default"}]}}


# Requests


@pytest.mark.parametrize(
    "body",
    [
        {"query": "{ Jobs { id } "},
        {"query": "{ Nothing }"},
        {"query": "{ Jobs { id } }", "operationName": "Other"},
        {"query": "query A { Jobs { id } } query B { Jobs { id } }", "operationName": "C"},
        {"query": "query A { Jobs { id } } query B { Jobs { id } }"},
        {"query": "fragment F on Job { id }"},
        {"query": 'subscription { JobUpdated(id: "a") { id } }'},
        {"query": "query ($id: String!) { Job(id: $id) { id } }"},
        {"query": "query ($id: String!) { Job(id: $id) { id } }", "variables": {"id": 5}},
        {"query": "query ($t: DateTime) { jobsConnection(createdAfter: $t) { nodes { id } } }", "variables": {"t": 5}},
        {"query": "   "},
    ],
    ids=json.dumps,
)
async def test_what_cannot_be_executed_is_an_error_without_data(client: Client, body: Answer) -> None:
    plain = await client.post("/graphql", json=body)
    modern = await client.post("/graphql", json=body, headers={"Accept": f"{GRAPHQL_JSON}, application/json;q=0.9"})

    answer = await plain.json()
    assert (plain.status, plain.content_type) == (200, "application/json")
    assert (modern.status, modern.content_type) == (400, GRAPHQL_JSON)
    assert await modern.json() == answer
    assert answer.keys() == {"errors"}
    assert {each["extensions"]["code"] for each in answer["errors"]} == {"BAD_INPUT"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("[]", ""),
        ("{}", "/query"),
        ('{"query": ""}', "/query"),
        ('{"query": 5}', "/query"),
        ('{"query": "{a}", "variables": []}', "/variables"),
        ('{"query": "{a}", "qurey": 1}', "/qurey"),
        ('{"query": "{a}", "query": "{b}"}', "/query"),
        ("{", ""),
    ],
    ids=lambda text: text[:40],
)
async def test_a_body_that_is_no_request_is_refused_with_400(client: Client, body: str, pointer: str) -> None:
    response = await client.post("/graphql", data=body, headers={"Content-Type": "application/json"})

    (refused,) = (await response.json())["errors"]
    assert response.status == 400
    assert refused["extensions"]["code"] == "BAD_INPUT"
    assert [each["pointer"] for each in refused["extensions"]["errors"]] == [pointer]


async def test_null_variables_and_names_are_as_none(client: Client) -> None:
    body = {"query": "{ Jobs { id } }", "variables": None, "operationName": None, "extensions": None}

    response = await client.post("/graphql", json=body)

    assert await response.json() == {"data": {"Jobs": []}}


async def test_the_named_operation_is_executed(client: Client) -> None:
    body = {"query": "query A { Jobs { id } } query B { Queues { name } }", "operationName": "B"}

    assert await (await client.post("/graphql", json=body)).json() == {"data": {"Queues": []}}


async def test_of_several_operations_none_is_executed_unless_one_is_named(client: Client) -> None:
    document = 'mutation A { Enqueue(task: "a", id: "a") { id } } mutation B { Enqueue(task: "b", id: "b") { id } }'

    refused = await error(client, document)

    assert refused["message"] == "the query has several operations: name the one that is meant as operationName"
    assert await data(client, "{ Jobs { id } }") == {"Jobs": []}


async def test_bodies_are_declared_json_and_bounded_as_in_rest(client: Client) -> None:
    large = json.dumps({"query": "{ Jobs { id } }", "variables": {"x": "x" * 65_536}})

    as_text = await client.post("/graphql", data='{"query": "{ Jobs { id } }"}', headers={"Content-Type": "text/plain"})
    as_form = await client.post("/graphql", data={"query": "{ Jobs { id } }"})
    too_large = await client.post("/graphql", data=large, headers={"Content-Type": "application/json"})

    assert [each.status for each in (as_text, as_form, too_large)] == [415, 415, 413]
    assert {each.content_type for each in (as_text, as_form, too_large)} == {"application/problem+json"}


async def test_there_are_no_queries_over_get(client: Client) -> None:
    response = await client.get("/graphql", params={"query": "{ Jobs { id } }"}, headers={"Accept": "text/html"})

    assert response.status == 405
    assert response.headers["Allow"] == "POST"
    assert response.content_type == "application/problem+json"


async def test_operations_at_the_same_time_do_not_wait_for_each_other(client: Client) -> None:
    await enqueue(client, "a")

    answers = await asyncio.gather(*(data(client, '{ Job(id: "a") { id } }') for _ in range(20)))

    assert answers == [{"Job": {"id": "a"}}] * 20
