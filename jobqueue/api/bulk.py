"""Many jobs in one request: an array or lines of JSON, each item judged by itself.

What is wrong with one item is that item's outcome and nobody else's; only a body that cannot be taken apart
into items, or one that is too large, is refused whole.
"""

from __future__ import annotations

import asyncio
import re
import time
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
from jobqueue.values import MAX_DEPTH, NOT_PLAIN, decode_json, decode_plain

READ_AT_ONCE = 128 << 10
"""Bytes of JSON that take some milliseconds to read. More are read in a thread, since 16 MiB take seconds."""

GLANCE_BYTES = 1 << 20
"""More than this are read by the scanner: at any object or integer others may get the interpreter lock."""

TURN_SECONDS = 0.005
"""After so much validation others get their turn on the event loop. Items may be small or large."""

SHOWN_AT_ONCE = 100
"""And after so many that were shown: some milliseconds when each is a problem."""

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
        value, read = _decode(body) if len(body) <= READ_AT_ONCE else await asyncio.to_thread(_decode, body)
        elements = _elements(value)
        # A small body has room for millions of items; what is made of each is many times as large as it is.
        _check_number(elements)
        return [_element(element, read, len(body)) for element in elements]
    raise web.HTTPUnsupportedMediaType(
        text=f"send an array as application/json, or one job a line as {NDJSON_TYPE}, and say so in Content-Type"
    )


async def enqueue_items(
    service: JobService,
    items: Sequence[Item],
    *,
    item_limit: int,
    instance: str,
    monotonic: Callable[[], float] = time.monotonic,
) -> BulkAnswer:
    """Store what is a job; tell about each item, in order, what became of it. Raises `ShuttingDown`."""
    read = await _read_all(items, item_limit, instance, monotonic)
    stored = iter(await service.enqueue_many([item for item in read if isinstance(item, NewJob)]))
    outcomes = [next(stored) if isinstance(item, NewJob) else item for item in read]
    shown = await _show_all(outcomes, instance)
    accepted = sum(item.id is not None for item in shown)
    return BulkAnswer(accepted=accepted, rejected=len(shown) - accepted, items=shown)


async def _read_all(
    items: Sequence[Item], item_limit: int, instance: str, monotonic: Callable[[], float]
) -> Sequence[NewJob | BulkItem]:
    read: list[NewJob | BulkItem] = []
    end_of_turn = monotonic() + TURN_SECONDS
    for index, item in enumerate(items):
        try:
            read.append(item(item_limit))
        except (InvalidJob, web.HTTPException) as error:
            # Shown at once. Its traceback holds this frame: were it kept in a list of this frame, the whole body would
            # stay until the garbage collector comes, which it seldom does.
            read.append(_show(index, error, instance))
        if monotonic() >= end_of_turn:
            await asyncio.sleep(0)
            end_of_turn = monotonic() + TURN_SECONDS
    return read


async def _show_all(outcomes: Sequence[Job | Exception | BulkItem], instance: str) -> list[BulkItem]:
    shown = []
    for index, outcome in enumerate(outcomes, 1):
        shown.append(outcome if isinstance(outcome, BulkItem) else _show(index - 1, outcome, instance))
        if index % SHOWN_AT_ONCE == 0:
            await asyncio.sleep(0)
    return shown


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


def _decode(body: bytes) -> tuple[JsonValue, Callable[[JsonValue], NewJobBody]]:
    """What a text says, and how to read its elements."""
    plain = decode_plain(body, most_bytes=GLANCE_BYTES, max_depth=MAX_DEPTH + 1 + NewJobBody.wrapping)
    return (plain, NewJobBody.read_plain) if plain is not NOT_PLAIN else (decode_json(body), NewJobBody.read)


def _elements(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise InvalidJob([FieldProblem("", "must be an array of jobs; POST /jobs takes one")])
    return value


def _element(element: JsonValue, read: Callable[[JsonValue], NewJobBody], at_most: int) -> Item:
    def read_within(limit: int) -> NewJob:
        # No element is longer than the body that it came in: mostly there is nothing to measure.
        if at_most > limit and _length(element) > limit:
            raise too_large(limit)
        return read(element).to_new_job()

    return read_within


def _length(element: JsonValue) -> int:
    """Measured before it is validated, which would take seconds for the largest."""
    try:
        return len(to_json(element))
    except ValueError:
        return 0  # of what cannot be written it will be told why
