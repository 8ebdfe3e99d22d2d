"""Filters and updates as MongoDB understands them: as much of both as the adapter uses, and an error for the rest.

Documents are immutable here: an update makes a new one, so that a history can keep what it was shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

Document = dict[str, Any]
MISSING: Any = object()


def stored(value: Any) -> Any:
    """A copy as BSON would keep it: times have milliseconds. What comes encoded is decoded."""
    if isinstance(value, RawBSONDocument):
        return bson.decode(value.raw, CodecOptions(tz_aware=True, tzinfo=UTC))
    if isinstance(value, dict):
        return {name: stored(item) for name, item in value.items()}
    if isinstance(value, list):
        return [stored(item) for item in value]
    if isinstance(value, datetime) and value.microsecond % 1000:
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    return value


def at_path(document: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path, or `MISSING`."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


def matches(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether a document fulfils a filter."""
    clauses = {path: condition for path, condition in query.items() if path != "$or"}
    one_of = query.get("$or")
    return all(_fulfils(at_path(document, path), condition) for path, condition in clauses.items()) and (
        one_of is None or any(matches(document, each) for each in one_of)
    )


def _fulfils(value: Any, condition: Any) -> bool:
    if isinstance(condition, Mapping) and any(name.startswith("$") for name in condition):
        return all(_OPERATORS[operator](value, operand) for operator, operand in condition.items())
    return _equals(value, condition)


def _equals(value: Any, wanted: Any) -> bool:
    if wanted is None:
        return value is MISSING or value is None
    if isinstance(value, list) and not isinstance(wanted, list):
        return wanted in value
    return bool(value == wanted)


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def fulfils(value: Any, bound: Any) -> bool:
        # Values of another type are never less or greater.
        kinds = ((int, float), (str,), (datetime,))
        return any(isinstance(value, kind) and isinstance(bound, kind) for kind in kinds) and compare(value, bound)

    return fulfils


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda value, wanted: not _equals(value, wanted),
    "$in": lambda value, wanted: any(_equals(value, one) for one in wanted),
    "$nin": lambda value, wanted: not any(_equals(value, one) for one in wanted),
    "$exists": lambda value, wanted: (value is not MISSING) is bool(wanted),
    "$not": lambda value, condition: not _fulfils(value, condition),
    "$regex": lambda value, pattern: isinstance(value, str) and re.search(pattern, value) is not None,
    "$lt": _compared(lambda value, bound: value < bound),
    "$lte": _compared(lambda value, bound: value <= bound),
    "$gt": _compared(lambda value, bound: value > bound),
    "$gte": _compared(lambda value, bound: value >= bound),
}


def updated(document: Mapping[str, Any], update: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Document:
    """The document after an update."""
    changed: Document = stored(dict(document))
    if not isinstance(update, Mapping):
        return _through(update, changed)
    for operator, fields in update.items():
        for path, operand in fields.items():
            _UPDATES[operator](changed, path, stored(operand))
    return changed


def _through(pipeline: Sequence[Mapping[str, Any]], document: Document) -> Document:
    for stage in pipeline:
        [(operator, operand)] = stage.items()
        if operator == "$unset":
            for path in operand:
                _unset(document, path, "")
        else:
            assert operator == "$set", operator
            values = {path: evaluated(expression, document) for path, expression in operand.items()}
            for path, value in values.items():
                _set(document, path, stored(value))
    return document


def evaluated(expression: Any, document: Mapping[str, Any]) -> Any:
    """What an expression of a pipeline is for a document: the few kinds that the adapter writes."""
    match expression:
        case {"$literal": value}:
            return value
        case {"$arrayElemAt": [array, index]}:
            return evaluated(array, document)[evaluated(index, document)]
        case {"$indexOfArray": [array, value]}:
            return evaluated(array, document).index(evaluated(value, document))
        case str() if expression.startswith("$"):
            return at_path(document, expression[1:])
    raise AssertionError(f"not known here: {expression}")


def upserted(query: Mapping[str, Any], update: Mapping[str, Any]) -> Document:
    """The document that an upsert makes where none matched."""
    fields = {name: value for name, value in query.items() if not isinstance(value, Mapping)}
    inserted = update.get("$set", {}) | update.get("$setOnInsert", {})
    return updated(fields, {**update, "$set": inserted})


def projected(document: Mapping[str, Any], fields: Mapping[str, Any] | None) -> Document:
    """A copy with the wanted fields only."""
    if not fields:
        copy: Document = stored(dict(document))
        return copy
    shown: Document = {}
    for path in {"_id": 1, **fields}:
        value = at_path(document, path)
        if fields.get(path, 1) and value is not MISSING:
            _set(shown, path, stored(value))
    return shown


def in_order(documents: Sequence[Document], order: Sequence[tuple[str, int]]) -> list[Document]:
    """Sorted by these fields; what lacks one comes first, as null does."""
    found = list(documents)
    for path, direction in reversed(order):
        found.sort(key=lambda one: _sort_key(at_path(one, path)), reverse=direction < 0)
    return found


def _sort_key(value: Any) -> tuple[int, Any]:
    return (0, 0) if value is MISSING or value is None else (1, value)


def _holder(document: Document, path: str) -> tuple[Document, str]:
    *parents, name = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    return document, name


def _set(document: Document, path: str, value: Any) -> None:
    holder, name = _holder(document, path)
    holder[name] = value


def _unset(document: Document, path: str, _: Any) -> None:
    holder, name = _holder(document, path)
    holder.pop(name, None)


def _inc(document: Document, path: str, amount: Any) -> None:
    holder, name = _holder(document, path)
    holder[name] = holder.get(name, 0) + amount


def _max(document: Document, path: str, value: Any) -> None:
    holder, name = _holder(document, path)
    holder[name] = max(holder[name], value) if name in holder else value


def _push(document: Document, path: str, values: Mapping[str, Any]) -> None:
    holder, name = _holder(document, path)
    pushed = [*holder.get(name, []), *values["$each"]]
    holder[name] = pushed[values["$slice"] :] if values["$slice"] < 0 else pushed[: values["$slice"]]


_UPDATES: Mapping[str, Callable[[Document, str, Any], None]] = {
    "$set": _set,
    "$setOnInsert": lambda document, path, value: None,
    "$unset": _unset,
    "$inc": _inc,
    "$max": _max,
    "$push": _push,
}
