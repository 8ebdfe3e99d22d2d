"""The ready operations of GraphiQL on a running service, by a GraphQL client library that reads the schema first,
and in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import PROGRAM, Browser
from gql import Client, GraphQLRequest, gql
from gql.client import AsyncClientSession
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
from gql.transport.exceptions import TransportQueryError
from graphql import GraphQLObjectType, OperationDefinitionNode, parse
from processes import ServiceProcess

from jobqueue.api.graphql.page import OPERATIONS

Settings = Callable[..., dict[str, str]]
READY = OPERATIONS.read_text(encoding="utf-8")
OF_THE_SEED = {
    "SimultaneousCreateJob", "SimulateUnstableJob", "Enqueue", "GetAllJobs", "GetJobById", "GetAllJobStatus",
}  # fmt: skip
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


@pytest.fixture
async def service(settings_for: Settings) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true", BACKOFF_BASE_SECONDS="0.1")) as service:
        yield service


@pytest.fixture
async def session(service: ServiceProcess) -> AsyncIterator[AsyncClientSession]:
    """A client that validates every operation against the schema that it has read from the service."""
    transport = AIOHTTPTransport(url=f"{service.url}/graphql")
    async with Client(transport=transport, fetch_schema_from_transport=True) as session:
        yield session


async def run(session: AsyncClientSession, name: str, **variables: Any) -> Any:
    """Execute one of the ready operations."""
    return await session.execute(GraphQLRequest(READY, variable_values=variables, operation_name=name))


async def states_of(service: ServiceProcess, job_id: str) -> list[dict[str, Any]]:
    """All that the subscription tells of a job, until it ends by itself."""
    transport = AIOHTTPWebsocketsTransport(url=f"{service.url}/graphql".replace("http", "ws"))
    follow = GraphQLRequest(READY, variable_values={"id": job_id}, operation_name="FollowJob")
    async with Client(transport=transport) as session:
        return [told["JobUpdated"] async for told in session.subscribe(follow)]


def test_the_operations_of_the_seed_are_ready() -> None:
    names = {
        each.name.value for each in parse(READY).definitions if isinstance(each, OperationDefinitionNode) and each.name
    }

    assert names >= OF_THE_SEED


async def test_the_schema_can_be_introspected_and_has_the_names_of_the_seed(session: AsyncClientSession) -> None:
    schema = session.client.schema

    assert schema is not None
    queries, mutations, subscriptions = schema.query_type, schema.mutation_type, schema.subscription_type
    assert isinstance(queries, GraphQLObjectType)
    assert isinstance(mutations, GraphQLObjectType)
    assert isinstance(subscriptions, GraphQLObjectType)
    assert {name: str(queries.fields[name].type) for name in ("Jobs", "Job", "JobStatus")} == {
        "Jobs": "[Job!]!",
        "Job": "Job",
        "JobStatus": "JobStatus!",
    }
    arguments = {name: str(argument.type) for name, argument in mutations.fields["Enqueue"].args.items()}
    assert (arguments["task"], arguments["idempotencyKey"], arguments["payload"]) == ("String!", "String", "JSON")
    assert str(mutations.fields["Enqueue"].type) == "Job!"
    assert "JobUpdated" in subscriptions.fields


async def test_jobs_created_at_the_same_time_all_end_completed(
    service: ServiceProcess, session: AsyncClientSession
) -> None:
    created = await run(session, "SimultaneousCreateJob")

    ended = [(await states_of(service, job["id"]))[-1]["status"] for job in created.values()]
    assert ended == ["COMPLETED"] * 5


async def test_the_unstable_job_ends_completed_on_its_third_attempt(
    service: ServiceProcess, session: AsyncClientSession
) -> None:
    created = (await run(session, "SimulateUnstableJob"))["Enqueue"]

    last = (await states_of(service, created["id"]))[-1]

    assert (created["status"], created["attempts"]) == ("PENDING", 0)
    assert (last["status"], last["attempts"]) == ("COMPLETED", 3)
    job = (await run(session, "GetJobById", id=created["id"]))["Job"]
    assert (job["status"], job["attempts"], [error["attempt"] for error in job["errors"]]) == ("COMPLETED", 3, [1, 2])


async def test_what_was_enqueued_is_listed_found_and_counted(
    service: ServiceProcess, session: AsyncClientSession
) -> None:
    ids = [(await run(session, "Enqueue"))["Enqueue"]["id"] for _ in range(3)]
    for job_id in ids:
        assert (await states_of(service, job_id))[-1]["status"] == "COMPLETED"

    listed = (await run(session, "GetAllJobs"))["Jobs"]
    counts = (await run(session, "GetAllJobStatus"))["JobStatus"]

    assert [job["id"] for job in listed] == ids
    assert {(job["status"], job["attempts"]) for job in listed} == {("COMPLETED", 1)}
    assert counts == {"pending": 0, "running": 0, "failed": 0, "completed": 3, "cancelled": 0}
    assert await run(session, "GetJobById", id="nobody") == {"Job": None}


async def test_enqueueing_again_with_the_same_key_answers_with_the_first_job(session: AsyncClientSession) -> None:
    again = gql('mutation { Enqueue(task: "email", idempotencyKey: "welcome-1") { id } }')

    first, second = await session.execute(again), await session.execute(again)

    assert first == second
    assert len((await run(session, "GetAllJobs"))["Jobs"]) == 1


async def test_the_client_sees_codes(session: AsyncClientSession) -> None:
    with pytest.raises(TransportQueryError) as refused:
        await session.execute(gql('mutation { Cancel(id: "nobody") { id } }'))

    assert refused.value.errors is not None
    assert refused.value.errors[0]["extensions"]["code"] == "NOT_FOUND"


async def test_a_service_with_followers_stops_at_once_and_cleanly(
    service: ServiceProcess, session: AsyncClientSession
) -> None:
    later = gql('mutation { Enqueue(task: "a", delaySeconds: 600) { id } }')
    job_id = (await session.execute(later))["Enqueue"]["id"]
    transport = AIOHTTPWebsocketsTransport(url=f"{service.url}/graphql".replace("http", "ws"))
    follow = GraphQLRequest(READY, variable_values={"id": job_id}, operation_name="FollowJob")

    async with Client(transport=transport) as following:
        told = following.subscribe(follow)
        assert (await anext(told))["JobUpdated"]["status"] == "PENDING"
        code = await service.stop(seconds=15)
        with pytest.raises(TransportQueryError) as ended:
            await anext(told)

    assert code == 0
    assert ended.value.errors is not None
    assert ended.value.errors[0]["extensions"]["code"] == "UNAVAILABLE"


# In a browser


@pytest.mark.skipif(PROGRAM is None, reason="no chromium here to show the page")
async def test_graphiql_runs_the_ready_operations_and_asks_no_other_server(
    service: ServiceProcess, tmp_path: Path
) -> None:
    async with Browser(tmp_path / "profile") as browser:
        await browser.open(f"{service.url}/graphiql")
        await browser.wait_for("document.querySelector('.graphiql-query-editor .CodeMirror') !== null")
        await browser.wait_for("document.title === 'jobqueue GraphiQL'")

        await choose(browser, "SimulateUnstableJob")
        job_id = (await shown(browser, "Enqueue"))["id"]
        await browser.wait_for(f"{VARIABLES}.includes('{job_id}')")
        await choose(browser, "FollowJob")
        await shown(browser, "JobUpdated", status="COMPLETED")
        await choose(browser, "GetJobById")
        job = await shown(browser, "Job")

        assert (job["id"], job["status"], job["attempts"]) == (job_id, "COMPLETED", 3)
        assert browser.complaints == []
        hosts = {urlsplit(url).netloc for url in browser.requested if not url.startswith("data:")}
        assert hosts == {urlsplit(service.url).netloc}


VARIABLES = "document.querySelectorAll('.graphiql-editor-tool .CodeMirror')[0].CodeMirror.getValue()"
RESPONSE = "document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"


async def choose(browser: Browser, operation: str) -> None:
    """Run an operation as people do: by the button and its menu."""
    # It has a menu as soon as the schema was read.
    await browser.click("document.querySelector('.graphiql-execute-button[aria-haspopup]')")
    await browser.click(
        f"[...document.querySelectorAll('[role=menuitem]')].find((each) => each.textContent === '{operation}')"
    )


async def shown(browser: Browser, field: str, **wanted: str) -> dict[str, Any]:
    """What the page shows as the answer, as soon as it has this field (with these values in it)."""
    conditions = "".join(f" && found.{name} === '{value}'" for name, value in wanted.items())
    script = f"""(() => {{
        try {{ const found = JSON.parse({RESPONSE}).data.{field}; return found{conditions} ? found : null; }}
        catch {{ return null; }}
    }})()"""
    answer: dict[str, Any] = await browser.wait_for(script)
    return answer
