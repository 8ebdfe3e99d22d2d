"""Lines that tasks log, as they are kept with the job: bounded, and such that MongoDB can carry them.

A task may log whatever it likes. What is too long is cut, what cannot be stored is kept as text; nothing that is
logged ever fails the task. Values are masked and tracebacks written out before, by the processors of `logs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import to_json, to_jsonable_python

from jobqueue.job import JsonValue, LogLine, cut
from jobqueue.logs import text_of
from jobqueue.values import check_value

MAX_MESSAGE_BYTES = 2048
MAX_FIELDS = 20
MAX_FIELD_NAME_BYTES = 64
MAX_FIELD_BYTES = 2048
MAX_FIELDS_BYTES = 6 * 1024


def make_line(*, at: datetime, attempt: int, level: str, message: object, fields: Mapping[str, Any]) -> LogLine:
    """A line that can be kept. Never raises, whatever the fields are."""
    text = cut(message if isinstance(message, str) else text_of(message), max_bytes=MAX_MESSAGE_BYTES)
    return LogLine(at=at, attempt=attempt, level=level, message=text, fields=_bounded(fields))


def line_bytes(line: LogLine) -> int:
    """How much of the bound a line uses up."""
    return len(line.__pydantic_serializer__.to_json(line))


def _bounded(fields: Mapping[str, Any]) -> dict[str, JsonValue]:
    kept: dict[str, JsonValue] = {}
    size = 0
    for name, value in list(fields.items())[:MAX_FIELDS]:
        key = cut(str(name), max_bytes=MAX_FIELD_NAME_BYTES).replace("\0", "")
        kept[key] = bounded = _storable(value)
        size += len(to_json(bounded))
    return kept if size <= MAX_FIELDS_BYTES else {"truncated": True, "bytes": size}


def _storable(value: Any) -> JsonValue:
    if isinstance(value, str):
        return _cut_middle(value)
    if value is None or isinstance(value, bool):
        return value
    try:
        plain = to_jsonable_python(value, fallback=text_of)
        if not check_value(plain) and len(to_json(plain)) <= MAX_FIELD_BYTES:
            return plain
    except Exception:  # what a value says of itself is user code
        pass
    return _cut_middle(text_of(value))


def _cut_middle(text: str) -> str:
    """At most so many bytes: of a traceback the beginning says where it came from, the end what went wrong."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= MAX_FIELD_BYTES:
        return encoded.decode()
    half = (MAX_FIELD_BYTES - 5) // 2
    return f"{encoded[:half].decode(errors='ignore')} ... {encoded[-half:].decode(errors='ignore')}"
