"""The header Idempotency-Key, as in draft-ietf-httpapi-idempotency-key-header: a structured-field string.

What many clients send instead, the key without its quotes, is taken as well. The key of the header and the
`idempotencyKey` of the body are the same thing to the service; the header asks for the first answer again, the
body for a refusal that names the first job.
"""

from __future__ import annotations

import re

from aiohttp import web
from multidict import istr

from jobqueue.errors import FieldProblem, HeaderProblem, InvalidJob
from jobqueue.idempotency import Enqueued
from jobqueue.job import MAX_KEY_LENGTH
from jobqueue.service import JobService, NewJob

KEY_HEADER: str = istr("Idempotency-Key")
REPLAYED_HEADER = "Idempotent-Replayed"
REPLAYED = {REPLAYED_HEADER: "true"}
"""What tells the client that this is the answer to an earlier request."""

QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:[ \t]*;.*)?')
"""An sf-string of RFC 9651 and, unread, its parameters: the draft gives none a meaning."""

BARE = re.compile(r"[!#-+\--:<-~]*")
"""A key as it is: visible ASCII, but nothing that has a meaning in a structured field."""

ESCAPED = re.compile(r"\\(.)")


async def enqueue(service: JobService, request: web.Request, new: NewJob) -> Enqueued:
    """Enqueue a job as its request says: once for each key that the header names. Raises `InvalidJob` and what
    the service does."""
    if KEY_HEADER not in request.headers:
        return Enqueued(await service.enqueue(new))
    key = key_of(request)
    if new.idempotency_key not in (None, key):
        raise InvalidJob([FieldProblem("/idempotencyKey", f"is another key than that of the header {KEY_HEADER}")])
    return await service.enqueue_once(new._replace(idempotency_key=key))


def refuse_key(request: web.Request) -> None:
    """Raises `InvalidJob` when there is a key in the header of a request that is not for one job."""
    if KEY_HEADER in request.headers:
        raise _wrong("does not go with many jobs: give each item an idempotencyKey of its own")


def key_of(request: web.Request) -> str:
    """The key in the header, which is there. Raises `InvalidJob`."""
    given = request.headers.getall(KEY_HEADER)
    if len(given) > 1:
        raise _wrong("is there more than once")
    return _parse(given[0].strip(" \t"))


def _parse(text: str) -> str:
    quoted = QUOTED.fullmatch(text)
    if quoted is None and not BARE.fullmatch(text):
        raise _wrong('must be a string in quotes, such as "8e03978e-40d5", of visible ASCII characters and spaces')
    key = ESCAPED.sub(r"\1", quoted[1]) if quoted is not None else text
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise _wrong(f"must have 1 to {MAX_KEY_LENGTH} characters")
    return key


def _wrong(detail: str) -> InvalidJob:
    return InvalidJob([HeaderProblem("", f"the header {KEY_HEADER} {detail}")])
