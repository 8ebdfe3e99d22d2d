"""JSON and DateTime. Both let values pass as they are: what may enter is decided where jobs are validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

JSON = NewType("JSON", object)
Timestamp = NewType("Timestamp", str)


def _read_timestamp(value: Any) -> str:
    if not isinstance(value, str):
        raise GraphQLError("must be an RFC 3339 time with its zone, such as 2026-02-02T05:30:00Z")
    return value


SCALARS: Mapping[object, ScalarDefinition] = {
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value: integers within 64 bits, finite numbers, at most 64 levels deep.",
        serialize=lambda value: value,
        parse_value=lambda value: value,
    ),
    Timestamp: strawberry.scalar(
        name="DateTime",
        description="A time of RFC 3339, such as 2026-02-02T05:30:00Z. In answers always UTC with milliseconds.",
        serialize=lambda value: value,
        parse_value=_read_timestamp,
    ),
}
