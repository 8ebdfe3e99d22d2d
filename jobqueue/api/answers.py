"""How answers are written: by the models that describe them, lists item by item, pages within their size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from aiohttp import ETag, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from pydantic import BaseModel

from jobqueue.api.cursor import encode_cursor
from jobqueue.api.errors import headers_of, problem_of
from jobqueue.api.schemas import Problem
from jobqueue.job import Job, JobView
from jobqueue.repository import Page

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
MAX_PAGE_BYTES = 4 << 20
"""A page ends early rather than grow beyond this, however large its jobs are."""


class WholeAnswer(web.Response):
    """An answer whose body is there before its head is written. Both are, at once.

    aiohttp comes to the same bytes by way of all that a response can be (streamed, chunked, compressed, with cookies),
    which costs half as much again. It still does where the connection is not kept, or the body not sent."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        is_kept = self._keep_alive is None and request.keep_alive and request.version == HttpVersion11
        if self._eof_sent or not is_kept or request.method == hdrs.METH_HEAD:
            return await super().prepare(request)
        body, headers, writer = self._body, self._headers, request.writer
        assert isinstance(body, bytes)
        headers[hdrs.CONTENT_LENGTH] = str(len(body))
        headers[hdrs.DATE] = rfc822_formatted_time()
        await writer.write_headers(f"HTTP/1.1 {self._status} {self._reason}", headers)
        await writer.write_eof(body)
        self._keep_alive = self._eof_sent = True
        return writer


def encode(value: BaseModel, model: type[BaseModel]) -> bytes:
    """JSON of `value` as `model` shows it: of a Job as JobView only the view."""
    # `fallback` is for what people store by hand, such as an ObjectId in a payload.
    return model.__pydantic_serializer__.to_json(value, by_alias=True, fallback=str)


def answer(value: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """One value as it is."""
    return json_answer(encode(value, type(value)), status=status, headers=headers)


def list_answer(values: Sequence[BaseModel], model: type[BaseModel]) -> web.Response:
    """A JSON array."""
    return json_answer(_array([encode(value, model) for value in values]))


def job_answer(job: Job, *, status: int = 200) -> web.Response:
    """One job."""
    return json_answer(encode(job, JobView), status=status)


def tagged_job_answer(request: web.Request, job: Job) -> web.Response:
    """One job with its ETag, or 304 when the client has this very state of it already."""
    body = encode(job, JobView)
    tag = hashlib.blake2b(body, digest_size=16).hexdigest()
    headers: dict[str, str] = {hdrs.ETAG: f'"{tag}"', hdrs.CACHE_CONTROL: "no-cache"}
    if any(known.value in (tag, "*") for known in _known_tags(request)):
        return web.Response(status=304, headers=headers)
    return json_answer(body, headers=headers)


def page_answer(request: web.Request, page: Page, *, envelope: tuple[bytes, bytes] = (b"", b"")) -> web.Response:
    """A page of jobs, what goes around it, and in `Link` where the next one is."""
    jobs, next_before = _fit(page)
    headers: dict[str, str] = {}
    if next_before is not None:
        target = request.rel_url.update_query(cursor=encode_cursor(next_before))
        headers[hdrs.LINK] = f'<{target.raw_path_qs}>; rel="next"'
    before, after = envelope
    return json_answer(before + _array(jobs) + after, headers=headers)


def problem_answer(error: Exception, *, instance: str, request_id: str) -> web.Response:
    """An exception as a problem document. What went wrong on our side carries the request id."""
    problem = problem_of(error, instance=instance)
    if problem.status >= 500:
        problem = problem.model_copy(update={"request_id": request_id})
    return WholeAnswer(
        body=encode(problem, Problem), status=problem.status, content_type=PROBLEM_JSON, headers=headers_of(error)
    )


def job_path(job_id: str) -> str:
    """The path of a job. An id that was made here stands for itself, which is seen at once."""
    return f"/jobs/{job_id if job_id.isascii() and job_id.isalnum() else quote(job_id, safe=':')}"


def json_answer(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON that is written already."""
    return WholeAnswer(body=body, status=status, content_type=JSON, headers=headers)


def _array(items: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _fit(page: Page) -> tuple[Sequence[bytes], int | None]:
    """The jobs of a page as far as they fit, the first in any case, and where the next page begins."""
    written: list[bytes] = []
    size = 0
    for position, job in enumerate(page.jobs):
        item = encode(job, JobView)
        size += len(item) + 1
        # The store counts BSON; the same value can be several times as long in JSON.
        if written and size > MAX_PAGE_BYTES:
            return written, page.jobs[position - 1].seq
        written.append(item)
    return written, page.next_before


def _known_tags(request: web.Request) -> Sequence[ETag]:
    return request.if_none_match or ()
