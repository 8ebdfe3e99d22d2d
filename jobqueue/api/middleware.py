"""Around every request: its id, in the log and in the answer, and problems instead of exceptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from multidict import istr

from jobqueue.api.answers import problem_answer
from jobqueue.api.errors import log_failure, row_of
from jobqueue.api.serving import Refuse
from jobqueue.job import NAME_PATTERN

# As aiohttp's own names of headers: a plain string is brought to lower case each time that it is looked for.
REQUEST_ID_HEADER = istr("X-Request-Id")
SITE_HEADER = istr("Sec-Fetch-Site")
OPTIONS_HEADER = istr("X-Content-Type-Options")
SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = structlog.get_logger(__name__)


def answer_all(new_id: Callable[[], str]) -> Middleware:
    """Give each request an id (the client's own when it is short and harmless) and answer exceptions with problem
    documents; the outermost place where any is caught."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(REQUEST_ID_HEADER)
        request_id = given if given and NAME_PATTERN.fullmatch(given) else new_id()
        # Nothing to unbind: aiohttp runs each request in a context of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if SITE_HEADER in request.headers:
                _refuse_other_sites(request)
            response = await handler(request)
        except Exception as error:
            response = _answer_to(request, error, request_id)
        if not response.prepared:
            headers = response.headers
            headers[REQUEST_ID_HEADER] = request_id
            headers[OPTIONS_HEADER] = "nosniff"
            headers[hdrs.SERVER] = "jobqueue"
        return response

    return answer


def refuse_all(new_id: Callable[[], str]) -> Refuse:
    """Answer exceptions that `answer_all` does not meet, such as those about what is no HTTP, in the same way. Nothing
    more is read from their connections."""

    def refuse(error: Exception, instance: str) -> web.Response:
        request_id = new_id()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = problem_answer(error, instance=instance, request_id=request_id)
        response.headers.update({REQUEST_ID_HEADER: request_id, OPTIONS_HEADER: "nosniff", hdrs.SERVER: "jobqueue"})
        response.force_close()
        return response

    return refuse


def _refuse_other_sites(request: web.Request) -> None:
    """A page of another site could have the browser on this machine send what needs no body (cancel, retry, a short
    enqueue). Browsers say where a request comes from (Fetch Metadata Request Headers, W3C); others say nothing."""
    if request.method not in SAFE_METHODS and request.headers[SITE_HEADER] == "cross-site":
        raise web.HTTPForbidden(text="a page of another site may not change anything here")


def _answer_to(request: web.Request, error: Exception, request_id: str) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed) and request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204, headers={hdrs.ALLOW: error.headers[hdrs.ALLOW]})
    if not isinstance(error, web.HTTPException):
        about = {"method": request.method, "path": request.rel_url.raw_path, "status": row_of(error).status}
        log_failure(log, error, **about)
    return problem_answer(error, instance=request.rel_url.raw_path, request_id=request_id)
