"""What goes in. Arguments are handed to the models of REST, which validate them; what is left out or null is not
handed on, so that it gets its default there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import strawberry
from pydantic.alias_generators import to_camel

from jobqueue.api.bulk import Item
from jobqueue.api.graphql.scalars import JSON, Timestamp
from jobqueue.api.schemas import NewJobBody
from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.service import NewJob

UNSET: Any = strawberry.UNSET


@strawberry.input(name="NewJob", description="A job to run. At most one of runAt and delaySeconds may be there.")
class NewJobInput:
    task: str = strawberry.field(description="Which task runs it.")
    payload: JSON | None = strawberry.field(default=UNSET, description="The task gets it as it is.")
    id: str | None = strawberry.field(default=UNSET, description="A name of your own; made when left out.")
    queue: str | None = UNSET
    priority: int | None = strawberry.field(default=UNSET, description="-1000 to 1000; higher runs first.")
    max_retries: int | None = strawberry.field(default=UNSET, description="How many attempts it may have.")
    run_at: Timestamp | None = strawberry.field(default=UNSET, description="Not before this time.")
    delay_seconds: float | None = strawberry.field(default=UNSET, description="Not before so many seconds from now.")
    timeout_seconds: float | None = strawberry.field(default=UNSET, description="Limit of one attempt.")
    tags: list[str] | None = UNSET
    idempotency_key: str | None = strawberry.field(
        default=UNSET, description="One job is made for a key; whoever comes later is refused, and told its id."
    )

    backoff: JSON | None = strawberry.field(
        default=UNSET, description="How long it waits after failed attempts: {baseSeconds, maxSeconds}."
    )
    fault: JSON | None = strawberry.field(
        default=UNSET, description="How it fails on purpose; only where JOBQUEUE_FAULTS is on."
    )

    def to_new_job(self) -> NewJob:
        """The same, as the service wants it. Raises `InvalidJob`."""
        arguments = vars(self) | {"type": self.task}
        del arguments["task"]
        with naming({"type": "task"}):
            return NewJobBody.read(given(**arguments)).to_new_job()


def item_of(job: NewJobInput) -> Item:
    """One of many jobs, not yet validated. The limit of one body holds for all of them together."""
    return lambda limit: job.to_new_job()


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that were given, under the names that GraphQL has for them."""
    return {to_camel(name): value for name, value in arguments.items() if value is not None and value is not UNSET}


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Tell what is wrong with arguments whose names the model does not share by the names that they have here."""
    try:
        yield
    except InvalidJob as error:
        raise InvalidJob([_renamed(problem, names) for problem in error.problems]) from None


def _renamed(problem: FieldProblem, names: Mapping[str, str]) -> FieldProblem:
    _, *steps = problem.pointer.split("/")
    if not steps or steps[0] not in names:
        return problem
    return FieldProblem("/".join(["", names[steps[0]], *steps[1:]]), problem.detail)
