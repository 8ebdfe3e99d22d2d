"""Many jobs in one request: an array or lines of JSON, each item judged by itself.

What is wrong with one item is that item's outcome and nobody else's; only a body that cannot be taken apart
into items, or one that is too large, is refused whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

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

Item = Callable[[int], NewJob]
"""One item, not yet validated: called with the most bytes that it may have, it makes the job or raises."""


async def read_items(request: web.Request, *, limit: int) -> Sequence[Item]:
    """Take the body apart. Raises `InvalidJob` or aiohttp's 413 and 415 when that cannot be done."""
    if request.content_type == NDJSON_TYPE:
        items = _lines(await read_body(request, limit=limit))
    elif is_json(request):
        body = await read_body(request, limit=limit)
        items = _elements(decode_json(body), at_most=len(body))
    else:
        raise web.HTTPUnsupportedMediaType(
            text=f"send an array as application/json, or one job a line as {NDJSON_TYPE}, and say so in Content-Type"
        )
    if len(items) > MAX_BULK_ITEMS:
        raise web.HTTPRequestEntityTooLarge(
            MAX_BULK_ITEMS, len(items), text=f"at most {MAX_BULK_ITEMS} items are taken"
        )
    return items


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


def _lines(body: bytes) -> Sequence[Item]:
    return [_line(line) for line in body.split(b"\n") if line.strip()]


def _line(line: bytes) -> Item:
    def read(limit: int) -> NewJob:
        if len(line) > limit:
            raise too_large(limit)
        return NewJobBody.read_json(line).to_new_job()

    return read


def _elements(value: JsonValue, *, at_most: int) -> Sequence[Item]:
    if not isinstance(value, list):
        raise InvalidJob([FieldProblem("", "must be an array of jobs")])
    return [_element(element, at_most) for element in value]


def _element(element: JsonValue, at_most: int) -> Item:
    def read(limit: int) -> NewJob:
        job = NewJobBody.read(element).to_new_job()
        # No element is longer than the body that it came in: mostly there is nothing to measure.
        if at_most > limit and len(to_json(element)) > limit:
            raise too_large(limit)
        return job

    return read
