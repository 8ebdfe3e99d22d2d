"""From a query string to its model: no parameter twice, none that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from aiohttp import web

from jobqueue.api.schemas import Input
from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.values import check_value, escape_pointer

Q = TypeVar("Q", bound=Input)


def read_query(request: web.Request, model: type[Q]) -> Q:
    """The query parameters of a request. Raises `InvalidJob` that names every one that is wrong."""
    if not request.rel_url.raw_query_string:
        nothing: Q = empty_query(model)
        return nothing
    given = dict(request.query)
    if problems := [*_repeated(request), *check_value(given)]:
        raise InvalidJob(problems)
    return model.read(given)


@cache
def empty_query(model: type[Q]) -> Q:
    """The query parameters of a request that has none. Raises `InvalidJob` when there must be some."""
    return model.read({})


def _repeated(request: web.Request) -> Iterable[FieldProblem]:
    for name in dict.fromkeys(request.query):
        if len(request.query.getall(name)) > 1:
            yield FieldProblem(f"/{escape_pointer(name)}", "is there more than once")
