"""From a query string to its model: no parameter twice, none that is not known."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

from jobqueue.api.schemas import Input
from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.values import check_value, escape_pointer

Q = TypeVar("Q", bound=Input)


def read_query(request: web.Request, model: type[Q]) -> Q:
    """The query parameters of a request. Raises `InvalidJob` that names every one that is wrong."""
    given = request.query
    repeated = [name for name in dict.fromkeys(given) if len(given.getall(name)) > 1]
    problems = [FieldProblem(f"/{escape_pointer(name)}", "is there more than once") for name in repeated]
    problems += check_value(dict(given))
    if problems:
        raise InvalidJob(problems)
    return model.read(dict(given))
