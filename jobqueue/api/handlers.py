"""One function per route: read the request, call the service, write the answer. Errors are raised, not formatted.

A handler calls the service layer, which writes the job document through the repository and dispatches its id to
the worker pool: `create_job` is where that begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web

from jobqueue import __version__
from jobqueue.api.answers import (
    MAX_PAGE_BYTES,
    answer,
    encode,
    job_answer,
    job_path,
    json_answer,
    list_answer,
    page_answer,
    tagged_job_answer,
)
from jobqueue.api.bodies import read_json_body
from jobqueue.api.bulk import enqueue_items, read_items
from jobqueue.api.idempotency import KEY_HEADER, REPLAYED, refuse_key
from jobqueue.api.idempotency import enqueue as enqueue_as_asked
from jobqueue.api.negotiation import text_wanted
from jobqueue.api.schemas import (
    Accepted,
    DeadLettersQuery,
    DeletedMany,
    Health,
    Index,
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
from jobqueue.clock import Clock
from jobqueue.errors import JobNotFound, Unavailable
from jobqueue.job import Job, JobView, LogLine, Status
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.service import JobService, NewJob
from jobqueue.values import check_value

MAX_ID_LENGTH = 128

NO_HEADERS: Mapping[str, str] = {}
BY_ACCEPT: Mapping[str, str] = {hdrs.VARY: hdrs.ACCEPT}

LINKS = {
    "self": "/",
    "jobs": "/jobs",
    "deadLetters": "/dlq",
    "queues": "/queues",
    "workers": "/workers",
    "metrics": "/metrics",
    "liveness": "/livez",
    "readiness": "/readyz",
    "openapi": "/openapi.json",
    "docs": "/docs",
    "graphiql": "/graphiql",
}
"""Where everything is, for `GET /`; a process that serves only some of it names only that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """The largest bodies that are taken, in bytes."""

    max_payload_bytes: int = 1 << 20
    max_bulk_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What the handlers work with."""

    service: JobService
    clock: Clock
    limits: BodyLimits
    openapi: bytes
    metrics: PrometheusMetrics
    links: Mapping[str, str]


API = web.AppKey("api", Api)
"""Where an application keeps it."""


async def create_job(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    body = await read_json_body(request, limit=api.limits.max_payload_bytes)
    new = NewJobBody.read_json(body).to_new_job()
    if KEY_HEADER not in request.headers:
        return _created(await api.service.enqueue(new))
    enqueued = await enqueue_as_asked(api.service, request, new)
    return _created(enqueued.job, REPLAYED if enqueued.replayed else NO_HEADERS)


async def create_jobs(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    refuse_key(request)
    items = await read_items(request, limit=api.limits.max_bulk_bytes)
    return answer(
        await enqueue_items(
            api.service, items, item_limit=api.limits.max_payload_bytes, instance=request.rel_url.raw_path
        )
    )


async def list_jobs(api: Api, request: web.Request, query: JobsQuery) -> web.Response:
    if query.id is not None:
        return await _show_job(api, request, checked_id(query.id), wait=query.wait or 0.0)
    page = await api.service.list(query.to_filter(), before=query.cursor, limit=query.limit, max_bytes=MAX_PAGE_BYTES)
    return page_answer(request, page)


async def get_job(api: Api, request: web.Request, query: WaitQuery) -> web.Response:
    return await _show_job(api, request, job_id_of(request), wait=query.wait)


async def cancel_job(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    job = await api.service.cancel(job_id_of(request))
    return job_answer(job, status=202 if job.status is Status.PROCESSING else 200)


async def retry_job(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return job_answer(await api.service.redrive(job_id_of(request)), status=202)


async def delete_job(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    await api.service.delete(job_id_of(request))
    return web.Response(status=204)


async def list_job_logs(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return list_answer(await api.service.logs(job_id_of(request)), LogLine)


async def list_dead_letters(api: Api, request: web.Request, query: DeadLettersQuery) -> web.Response:
    count = await api.service.count_dead_letters()
    page = await api.service.list(query.to_filter(), before=query.cursor, limit=query.limit, max_bytes=MAX_PAGE_BYTES)
    return page_answer(request, page, envelope=(b'{"count":%d,"jobs":' % count, b"}"))


async def retry_dead_letter(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    job = await api.service.redrive_dead_letter(job_id_of(request))
    return answer(Requeued(job_id=job.id), status=202)


async def retry_dead_letters(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    body = await _read_which(api, request)
    requeued = await api.service.redrive_many(body.to_filter(), limit=body.limit)
    return answer(RequeuedMany(requeued=len(requeued), more=await has_more(api.service, body)))


async def delete_dead_letters(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    body = await _read_which(api, request)
    deleted = await api.service.delete_dead_letters(body.to_filter(), limit=body.limit)
    return answer(DeletedMany(deleted=deleted, more=await has_more(api.service, body)))


async def enqueue(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    # The short form of `create_job`: without a body it enqueues a job that has nothing but defaults.
    body = await read_json_body(request, limit=api.limits.max_payload_bytes) if request.can_read_body else b""
    new = NewJobBody.read_json(body).to_new_job() if body else NewJob()
    enqueued = await enqueue_as_asked(api.service, request, new)
    short = Accepted(id=enqueued.job.id, status=enqueued.job.status)
    return answer(short, status=202, headers=REPLAYED if enqueued.replayed else None)


async def find_status(api: Api, request: web.Request, query: StatusQuery) -> web.Response:
    return await _show_status(api, checked_id(query.id))


async def show_status(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return await _show_status(api, job_id_of(request))


async def list_queues(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    now = api.clock.now()
    return list_answer([QueueView.of(queue, now=now) for queue in await api.service.queues()], QueueView)


async def list_workers(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return list_answer(await api.service.workers(), WorkerView)


async def show_metrics(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    wanted = text_wanted(request.headers.getall(hdrs.ACCEPT, []))
    if wanted is None:
        return answer(Metrics.of(await api.service.database_state()), headers=BY_ACCEPT)
    state = None
    # What this process counted is to be seen also, and above all, while the database is away.
    with contextlib.suppress(Unavailable):
        state = await api.service.database_state()
    body, content_type = await api.metrics.scrape(wanted, state)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type, **BY_ACCEPT})


async def show_index(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return answer(Index(name="jobqueue", version=__version__, links=api.links))


async def show_liveness(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return answer(Health(status="alive"))


async def show_readiness(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    await api.service.check()
    return answer(Health(status="ready"))


async def show_health(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return await show_readiness(api, request, query)


async def show_openapi(api: Api, request: web.Request, query: NoQuery) -> web.Response:
    return json_answer(api.openapi)


def _created(job: Job, headers: Mapping[str, str] = NO_HEADERS) -> web.Response:
    return json_answer(encode(job, JobView), status=201, headers={hdrs.LOCATION: job_path(job.id), **headers})


async def _show_job(api: Api, request: web.Request, job_id: str, *, wait: float) -> web.Response:
    return tagged_job_answer(request, await api.service.wait(job_id, seconds=wait))


async def _read_which(api: Api, request: web.Request) -> RedriveBody:
    return RedriveBody.read_json(await read_json_body(request, limit=api.limits.max_payload_bytes))


async def _show_status(api: Api, job_id: str) -> web.Response:
    job = await api.service.get(job_id)
    return answer(StatusView(id=job.id, status=job.status, retry_count=job.retry_count))


def job_id_of(request: web.Request) -> str:
    """The id in the path. Raises `JobNotFound` for one that no job can have."""
    return checked_id(request.match_info["id"])


def checked_id(job_id: str) -> str:
    """The id itself. Raises `JobNotFound` when no job can have it, without asking the store.

    Ids in the store that people made there by hand may have other characters than `NAME_PATTERN` allows."""
    if not 0 < len(job_id) <= MAX_ID_LENGTH or "\0" in job_id or check_value(job_id):
        raise JobNotFound(job_id[:MAX_ID_LENGTH])
    return job_id


async def has_more(service: JobService, which: RedriveBody) -> bool:
    """Whether there are dead letters left of those that were meant."""
    return bool((await service.list(which.to_filter(), before=None, limit=1, max_bytes=MAX_PAGE_BYTES)).jobs)
