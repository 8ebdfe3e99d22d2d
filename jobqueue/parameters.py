"""How a task wants to be called, found out from its signature when it is registered.

A task takes nothing, the payload, the context, or both. The context is the parameter that is annotated
`TaskContext` or named `context`; the other one is the payload. An annotated payload is validated as JSON, by
pydantic's ordinary (lax) rules: `"5"` is accepted for an `int`, an ISO string for a `datetime`; models and
dataclasses that want it stricter say so in their own `model_config`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from jobqueue.context import TaskContext
from jobqueue.errors import ConfigurationError
from jobqueue.job import JsonValue
from jobqueue.outcome import PermanentFailure, summarise

CONTEXT_NAME = "context"
NAMEABLE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class InvalidPayload(PermanentFailure):
    """The payload is not what the task takes; the message lists everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The names of the two parameters, where the task has them, and what the payload must be."""

    context: str | None
    payload: str | None
    adapter: TypeAdapter[Any] | None

    def arguments(self, context: TaskContext, payload: JsonValue) -> Mapping[str, Any]:
        """What to call the task with. Raises `InvalidPayload`."""
        arguments: dict[str, Any] = {}
        if self.context is not None:
            arguments[self.context] = context
        if self.payload is not None:
            arguments[self.payload] = self._validated(payload)
        return arguments

    def _validated(self, payload: JsonValue) -> Any:
        if self.adapter is None:
            return payload
        # As JSON, not as Python objects: otherwise a strict model could not have a datetime in it. The
        # fallback is for what only a document written by hand can hold, such as an ObjectId.
        document = to_json(payload, inf_nan_mode="constants", fallback=str)
        try:
            return self.adapter.validate_json(document)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidPayload(f"the payload does not fit: {summarise(problems)}") from None


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Read the signature. Raises `ConfigurationError` when it is none that a task can have."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError("it has no signature that can be read") from None
    context = next((p for p in found if _is_context(p)), None)
    others = [p for p in found if p is not context]
    payload = others[0] if others else None
    _check(found, others[1:])
    return Parameters(
        context=context.name if context else None,
        payload=payload.name if payload else None,
        adapter=_adapter(function, payload) if payload else None,
    )


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # By its last word, because the import may be there for type checkers only.
        annotated = annotation.strip("\"'").rpartition(".")[2] == TaskContext.__name__
    else:
        annotated = annotation is TaskContext
    return annotated or parameter.name == CONTEXT_NAME


def _check(found: list[inspect.Parameter], surplus: list[inspect.Parameter]) -> None:
    if unnamed := [str(p) for p in found if p.kind not in NAMEABLE]:
        raise ConfigurationError(f"its parameters must be plain names, not {', '.join(unnamed)}")
    if unfilled := [p.name for p in surplus if p.default is inspect.Parameter.empty]:
        raise ConfigurationError(
            f"it takes the payload and the context ({CONTEXT_NAME}: TaskContext), and nothing else without a "
            f"default: {', '.join(unfilled)}"
        )


def _adapter(function: Callable[..., Any], payload: inspect.Parameter) -> TypeAdapter[Any] | None:
    if payload.annotation in (inspect.Parameter.empty, Any, object):
        return None
    try:
        annotation = _evaluated(function, payload)
        return None if annotation in (Any, object) else TypeAdapter(annotation)
    except (NameError, TypeError, SyntaxError, PydanticUserError) as error:
        message = str(error).partition("\n")[0]
        raise ConfigurationError(f"the type of {payload.name!r} cannot be used: {message}") from error


def _evaluated(function: Callable[..., Any], payload: inspect.Parameter) -> Any:
    # Only this annotation: the others may name what is imported for type checkers only.
    holder = SimpleNamespace(__annotations__={payload.name: payload.annotation})
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    return typing.get_type_hints(holder, globalns=namespace, include_extras=True)[payload.name]
