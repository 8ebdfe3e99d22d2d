"""Every route, as a list of values: what serves it, what it takes and how it answers.

`build_api` makes the aiohttp application of it. The OpenAPI document is made of the same list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Generic, TypeVar

from aiohttp import hdrs, web
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

from jobqueue import __version__
from jobqueue.api import docs, handlers
from jobqueue.api.answers import JSON
from jobqueue.api.bodies import NDJSON_TYPE
from jobqueue.api.graphql import page as graphiql
from jobqueue.api.graphql.requests import GraphQLAnswer, GraphQLBody, execute_graphql
from jobqueue.api.graphql.sockets import Sockets
from jobqueue.api.handlers import API, LINKS, Api, BodyLimits
from jobqueue.api.idempotency import KEY_HEADER, REPLAYED_HEADER
from jobqueue.api.middleware import answer_all, refuse_all
from jobqueue.api.negotiation import TEXTS
from jobqueue.api.openapi import Reply, build_openapi
from jobqueue.api.queries import empty_query, read_query
from jobqueue.api.schemas import (
    LIVE,
    Accepted,
    BulkAnswer,
    BulkBody,
    DeadLetters,
    DeadLettersQuery,
    DeletedMany,
    Health,
    Index,
    Input,
    JobsQuery,
    Metrics,
    NewJobBody,
    NoQuery,
    QueueView,
    RedriveBody,
    Requeued,
    RequeuedMany,
    StatusQuery,
    StatusView,
    WaitQuery,
    WorkerView,
)
from jobqueue.api.server_log import server_log
from jobqueue.api.serving import REFUSE, SHORTCUTS, Respond
from jobqueue.clock import Clock, Identifiers
from jobqueue.job import JobView, LogLine
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.service import JobService

Q = TypeVar("Q", bound=Input)
Handler = Callable[[Api, web.Request, Q], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[Q]):
    """One route. `body` maps the media types it takes to their shapes, `headers` has those that it reads, and
    `problems` lists how it may refuse, besides 403, as all do that change something, and 500, as any may."""

    method: str
    path: str
    handler: Handler[Q]
    query: type[Q]
    summary: str
    tag: str
    replies: Mapping[int, Reply]
    problems: Sequence[int] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    body_required: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the route is called in the OpenAPI document: as its handler."""
        return to_camel(self.handler.__name__)

    def bind(self, api: Api) -> Respond:
        """The handler as aiohttp calls it."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self.handler(api, request, read_query(request, self.query))

        return handle

    def bind_without_query(self, api: Api) -> Respond:
        """The handler for requests that have no query."""

        def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
            return self.handler(api, request, empty_query(self.query))

        return handle


HEALTH = "health"
METRICS = "metrics"
INDEX_PATH = "/"
GRAPHQL_PATH = "/graphql"
LINK = {"Link": 'where the next page is, `rel="next"`; absent on the last one'}
KEYED = {KEY_HEADER: "who repeats a request with the same key gets the first answer again; kept as long as the job"}
REPLAYED = {REPLAYED_HEADER: "`true` when this is the answer to an earlier request"}
TAGGED = {"ETag": "of this very state; send it as If-None-Match"}

ROUTES: Sequence[Route[Any]] = (
    Route(
        method="POST",
        path="/jobs",
        handler=handlers.create_job,
        query=NoQuery,
        body={JSON: NewJobBody},
        headers=KEYED,
        summary="Enqueue a job",
        tag="jobs",
        replies={201: Reply("The job is stored", JobView, {"Location": "where the job is"} | REPLAYED)},
        problems=(400, 408, 409, 413, 415, 422, 429, 503),
    ),
    Route(
        method="POST",
        path="/jobs/bulk",
        handler=handlers.create_jobs,
        query=NoQuery,
        body={JSON: BulkBody, NDJSON_TYPE: str},
        summary="Enqueue up to 10,000 jobs, each judged by itself",
        tag="jobs",
        replies={200: Reply("What became of each item", BulkAnswer)},
        problems=(400, 408, 413, 415, 429, 503),
    ),
    Route(
        method="GET",
        path="/jobs",
        handler=handlers.list_jobs,
        query=JobsQuery,
        summary="List jobs, the newest first, or show one by its id",
        tag="jobs",
        replies={
            200: Reply("A page of jobs; with `id` that job", list[JobView] | JobView, LINK | TAGGED),
            304: Reply("The job with this `id` is as the client knows it"),
        },
        problems=(400, 404, 503),
    ),
    Route(
        method="GET",
        path="/jobs/{id}",
        handler=handlers.get_job,
        query=WaitQuery,
        summary="Show a job, at once or when it is finished",
        tag="jobs",
        replies={200: Reply("The job", JobView, TAGGED), 304: Reply("It is as the client knows it")},
        problems=(400, 404, 503),
    ),
    Route(
        method="POST",
        path="/jobs/{id}/cancel",
        handler=handlers.cancel_job,
        query=NoQuery,
        summary="Cancel a waiting job, or ask a running one to stop",
        tag="jobs",
        replies={200: Reply("It is cancelled", JobView), 202: Reply("It runs, and was asked to stop", JobView)},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="POST",
        path="/jobs/{id}/retry",
        handler=handlers.retry_job,
        query=NoQuery,
        summary="Put a failed or cancelled job back",
        tag="jobs",
        replies={202: Reply("It is pending again", JobView)},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="DELETE",
        path="/jobs/{id}",
        handler=handlers.delete_job,
        query=NoQuery,
        summary="Remove a job that is not running",
        tag="jobs",
        replies={204: Reply("It is gone")},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="GET",
        path="/jobs/{id}/logs",
        handler=handlers.list_job_logs,
        query=NoQuery,
        summary="Show what the attempts of a job logged, the oldest line first",
        tag="jobs",
        replies={200: Reply("The newest lines, within 200 and 64 KiB", list[LogLine])},
        problems=(400, 404, 503),
    ),
    Route(
        method="GET",
        path="/dlq",
        handler=handlers.list_dead_letters,
        query=DeadLettersQuery,
        summary="List the jobs that failed for good, the newest first",
        tag="dead letters",
        replies={200: Reply("A page of dead letters", DeadLetters, LINK)},
        problems=(400, 503),
    ),
    Route(
        method="POST",
        path="/dlq/{id}/retry",
        handler=handlers.retry_dead_letter,
        query=NoQuery,
        summary="Put one dead letter back",
        tag="dead letters",
        replies={202: Reply("It is pending again", Requeued)},
        problems=(400, 404, 409, 503),
    ),
    Route(
        method="POST",
        path="/dlq/retry",
        handler=handlers.retry_dead_letters,
        query=NoQuery,
        body={JSON: RedriveBody},
        summary="Put many dead letters back",
        tag="dead letters",
        replies={200: Reply("How many were put back", RequeuedMany)},
        problems=(400, 408, 413, 415, 503),
    ),
    Route(
        method="POST",
        path="/dlq/delete",
        handler=handlers.delete_dead_letters,
        query=NoQuery,
        body={JSON: RedriveBody},
        summary="Remove many dead letters",
        tag="dead letters",
        replies={200: Reply("How many were removed", DeletedMany)},
        problems=(400, 408, 413, 415, 503),
    ),
    Route(
        method="POST",
        path=GRAPHQL_PATH,
        handler=execute_graphql,
        query=NoQuery,
        body={JSON: GraphQLBody},
        summary="Ask or change something by GraphQL; subscriptions by a websocket at the same path",
        tag="graphql",
        replies={
            200: Reply("What was asked for, and what went wrong; `extensions.code` says how", GraphQLAnswer),
            400: Reply("It cannot be executed, and `errors` says why; or the request itself is wrong", GraphQLAnswer),
        },
        problems=(400, 408, 413, 415),
    ),
    Route(
        method="POST",
        path="/enqueue",
        handler=handlers.enqueue,
        query=NoQuery,
        body={JSON: NewJobBody},
        body_required=False,
        headers=KEYED,
        summary="Enqueue a job, in short; without a body one that has nothing but defaults",
        tag="jobs",
        replies={202: Reply("The job is stored", Accepted, REPLAYED)},
        problems=(400, 408, 409, 413, 415, 422, 429, 503),
    ),
    Route(
        method="GET",
        path="/status",
        handler=handlers.find_status,
        query=StatusQuery,
        summary="Show where a job stands, by its id in the query",
        tag="jobs",
        replies={200: Reply("Where it stands", StatusView)},
        problems=(400, 404, 503),
    ),
    Route(
        method="GET",
        path="/status/{id}",
        handler=handlers.show_status,
        query=NoQuery,
        summary="Show where a job stands",
        tag="jobs",
        replies={200: Reply("Where it stands", StatusView)},
        problems=(400, 404, 503),
    ),
    Route(
        method="GET",
        path="/queues",
        handler=handlers.list_queues,
        query=NoQuery,
        summary="Show what waits and what runs, by queue",
        tag="operation",
        replies={200: Reply("Every known queue", list[QueueView])},
        problems=(400, 503),
    ),
    Route(
        method="GET",
        path="/workers",
        handler=handlers.list_workers,
        query=NoQuery,
        summary="Show the live processes with workers",
        tag="operation",
        replies={200: Reply(f"Every process with workers {LIVE}", list[WorkerView])},
        problems=(400, 503),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=handlers.show_metrics,
        query=NoQuery,
        summary="Show the totals of the database; to Prometheus also what this process counted",
        tag=METRICS,
        replies={200: Reply("In the form that `Accept` asks for", Metrics, {"Vary": "Accept"}, TEXTS)},
        problems=(400, 503),
    ),
    Route(
        method="GET",
        path=INDEX_PATH,
        handler=handlers.show_index,
        query=NoQuery,
        summary="Show what is here",
        tag="operation",
        replies={200: Reply("Name, version and links", Index)},
        problems=(400,),
    ),
    Route(
        method="GET",
        path="/livez",
        handler=handlers.show_liveness,
        query=NoQuery,
        summary="Whether the process answers",
        tag=HEALTH,
        replies={200: Reply("It does", Health)},
        problems=(400,),
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=handlers.show_readiness,
        query=NoQuery,
        summary="Whether the process and MongoDB can take requests",
        tag=HEALTH,
        replies={200: Reply("They can", Health)},
        problems=(400, 503),
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=handlers.show_health,
        query=NoQuery,
        summary="The same as /readyz",
        tag=HEALTH,
        replies={200: Reply("They can", Health)},
        problems=(400, 503),
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler=handlers.show_openapi,
        query=NoQuery,
        summary="This document",
        tag="operation",
        replies={200: Reply("OpenAPI 3.1", dict[str, Any])},
        problems=(400,),
    ),
)

PAGES: Mapping[str, Respond] = {
    "/docs": docs.show_page,
    "/docs/{name}": docs.show_asset,
    "/graphiql": graphiql.show_graphiql,
    "/graphiql/{name}": graphiql.show_graphiql_asset,
}
"""What people look at; no part of the API that the OpenAPI document describes."""


def build_api(
    service: JobService,
    *,
    clock: Clock,
    limits: BodyLimits | None = None,
    random: Random | None = None,
    metrics: PrometheusMetrics | None = None,
) -> web.Application:
    """The whole API as one application; nothing is connected or started. `random` makes request ids, `metrics` has
    counted what this process does."""
    app = _application(ROUTES, _api(service, clock, limits, metrics), random)
    for path, page in PAGES.items():
        _add(app, hdrs.METH_GET, path, page)
    sockets = Sockets()
    _add(app, hdrs.METH_GET, GRAPHQL_PATH, sockets.serve)
    app.on_shutdown.append(sockets.close)
    return app


def build_health_api(
    service: JobService, *, clock: Clock, random: Random | None = None, metrics: PrometheusMetrics | None = None
) -> web.Application:
    """Only the routes by which others see whether the process lives and is ready, and what it does; and the index of
    these."""
    watched = [route for route in ROUTES if route.tag in (HEALTH, METRICS) or route.path == INDEX_PATH]
    links = {name: path for name, path in LINKS.items() if path in {route.path for route in watched}}
    return _application(watched, _api(service, clock, None, metrics, links), random)


def _api(
    service: JobService,
    clock: Clock,
    limits: BodyLimits | None,
    metrics: PrometheusMetrics | None,
    links: Mapping[str, str] = LINKS,
) -> Api:
    return Api(
        service=service,
        clock=clock,
        limits=limits or BodyLimits(),
        openapi=to_json(build_openapi(ROUTES, version=__version__)),
        metrics=metrics or PrometheusMetrics(),
        links=links,
    )


def _application(routes: Sequence[Route[Any]], api: Api, random: Random | None) -> web.Application:
    new_id = Identifiers(random).token
    answer = answer_all(new_id)
    app = web.Application(
        middlewares=[answer],
        # Compressed bodies are refused with 415; aiohttp's own decoding would break the connection at a wrong one.
        handler_args={"auto_decompress": False, "logger": server_log},
    )
    app[API] = api
    plain = [route for route in routes if "{" not in route.path]
    shortcuts: Mapping[tuple[str, str], Respond] = {
        (each.method, each.path): partial(answer, handler=each.bind_without_query(api)) for each in plain
    }
    app[SHORTCUTS] = shortcuts
    app[REFUSE] = refuse_all(new_id)
    for route in routes:
        _add(app, route.method, route.path, route.bind(api))
    return app


def _add(app: web.Application, method: str, path: str, handler: Respond) -> None:
    resource = app.router.add_resource(path)
    methods = (hdrs.METH_GET, hdrs.METH_HEAD) if method == hdrs.METH_GET else (method,)
    for each in methods:
        resource.add_route(each, handler, expect_handler=_ask_later)


async def _ask_later(request: web.Request) -> None:
    """A client that waits until it is asked for its body is asked by what reads it, if that has no reason to refuse."""
