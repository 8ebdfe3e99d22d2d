"""Many jobs in one request: an array or lines of JSON, each item judged by itself.

What is wrong with one item is that item's outcome and nobody else's; only a body that cannot be taken apart
into items, or one that is too large, is refused whole.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence, Sized
from itertools import islice

from aiohttp import web
from pydantic_core import to_json

from jobqueue.api.bodies import NDJSON_TYPE, is_json, read_body, too_large
from jobqueue.api.errors import problem_of
from jobqueue.api.schemas import MAX_BULK_ITEMS, BulkAnswer, BulkItem, NewJobBody
from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.job import Job, JsonValue
from jobqueue.service import JobService, NewJob
from jobqueue.values import decode_json

ITEMS_BETWEEN_PAUSES = 200
"""Some milliseconds of validation; then others get their turn on the event loop."""

PROBLEMS_OF_AN_ITEM = 3
"""Ten thousand items with everything that is wrong with each would be an answer many times their size."""

FROM_THE_FIRST_CHARACTER = re.compile(rb"\S[^\n]*")
"""A line that is not blank, without the blanks it begins with."""

Item = Callable[[int], NewJob]
"""One item, not yet validated: called with the most bytes that it may have, it makes the job or raises."""


async def read_items(request: web.Request, *, limit: int) -> Sequence[Item]:
    """Take the body apart. Raises `InvalidJob` or aiohttp's 413 and 415 when that cannot be done."""
    if request.content_type == NDJSON_TYPE:
        body = await read_body(request, limit=limit)
        lines = _lines(body)
        _check_number(lines)
        return [_line(line) for line in lines]
    if is_json(request):
        body = await read_body(request, limit=limit)
        elements = _elements(decode_json(body))
        # A small body has room for millions of items; what is made of each is many times as large as it is.
        _check_number(elements)
        return [_element(element, len(body)) for element in elements]
    raise web.HTTPUnsupportedMediaType(
        text=f"send an array as application/json, or one job a line as {NDJSON_TYPE}, and say so in Content-Type"
    )


async def enqueue_items(service: JobService, items: Sequence[Item], *, item_limit: int, instance: str) -> BulkAnswer:
    """Store what is a job; tell about each item, in order, what became of it. Raises `ShuttingDown`."""
    read = await _read_all(items, item_limit)
    stored = iter(await service.enqueue_many([item for item in read if isinstance(item, NewJob)]))
    outcomes = [next(stored) if isinstance(item, NewJob) else item for item in read]
    shown = [_show(index, outcome, instance) for index, outcome in enumerate(outcomes)]
    accepted = sum(item.id is not None for item in shown)
    return BulkAnswer(accepted=accepted, rejected=len(shown) - accepted, items=shown)


async def _read_all(items: Sequence[Item], item_limit: int) -> Sequence[NewJob | Exception]:
    read: list[NewJob | Exception] = []
    for index, item in enumerate(items):
        if index % ITEMS_BETWEEN_PAUSES == 0:
            await asyncio.sleep(0)
        try:
            read.append(item(item_limit))
        except (InvalidJob, web.HTTPException) as error:
            read.append(error)
    return read


def _show(index: int, outcome: Job | Exception, instance: str) -> BulkItem:
    if isinstance(outcome, Job):
        return BulkItem(index=index, status=201, id=outcome.id)
    problem = problem_of(outcome, instance=f"{instance}#/{index}")
    if problem.errors is not None:
        problem = problem.model_copy(update={"errors": problem.errors[:PROBLEMS_OF_AN_ITEM]})
    return BulkItem(index=index, status=problem.status, problem=problem)


def _check_number(items: Sized) -> None:
    """Raises aiohttp's 413 when these are more than one request may have."""
    if len(items) > MAX_BULK_ITEMS:
        raise web.HTTPRequestEntityTooLarge(
            MAX_BULK_ITEMS, len(items), text=f"at most {MAX_BULK_ITEMS} items are taken"
        )


def _lines(body: bytes) -> Sequence[bytes]:
    if body.count(b"\n") <= MAX_BULK_ITEMS:
        return [line for line in body.split(b"\n") if line.strip()]
    # Perhaps too many: no more are made than tell it, and blank ones, maybe millions, are passed over in C.
    found = islice(FROM_THE_FIRST_CHARACTER.finditer(body), MAX_BULK_ITEMS + 1)
    return [body[body.rfind(b"\n", 0, line.start()) + 1 : line.end()] for line in found]


def _line(line: bytes) -> Item:
    def read(limit: int) -> NewJob:
        if len(line) > limit:
            raise too_large(limit)
        return NewJobBody.read_json(line).to_new_job()

    return read


def _elements(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise InvalidJob([FieldProblem("", "must be an array of jobs")])
    return value


def _element(element: JsonValue, at_most: int) -> Item:
    def read(limit: int) -> NewJob:
        job = NewJobBody.read(element).to_new_job()
        # No element is longer than the body that it came in: mostly there is nothing to measure.
        if at_most > limit and len(to_json(element)) > limit:
            raise too_large(limit)
        return job

    return read
