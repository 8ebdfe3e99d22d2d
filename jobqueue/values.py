"""JSON values at the door: which ones may enter, and how bytes become one.

Whatever passes here can be stored by BSON and comes back exactly as it went in: integers within int64, finite
numbers, well-formed text, no NUL in keys, no key twice, bounded depth. Bytes are read by the standard library's
C scanner, since it alone tells about repeated keys, NaN and numbers of any length through hooks; orjson and
pydantic-core let the last of two equal keys win. The hooks only leave marks: where a quick look is not content, one
iterative walk finds these and everything else that is wrong, and knows where it is. Texts in which nothing can be
wrong are told by counting (`decode_plain`), and read by pydantic-core. Linear in the size of the input; nothing
here does I/O.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from math import isfinite
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.job import JsonValue

MAX_DEPTH = 64
"""How deep arrays and objects may be nested; MongoDB itself takes 100 levels for the whole document."""

TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"

MAX_PROBLEMS = 20
"""More than this many are not looked for: an answer is not to be larger than its question."""

INT64 = range(-(2**63), 2**63)
LONGEST_INT64 = len(str(INT64[0]))
BEYOND_INT64 = 2**63

PLAIN_BYTES = 4096
"""Texts longer than this are for the scanner, which is quicker at passing over long strings."""

SHAPE = bytes.maketrans(b"[]123456789", b"{}000000000")
"""Of a number its length, of arrays and objects their levels."""

LONG_NUMBER = b"0" * (LONGEST_INT64 - 1)
"""Without so many digits in a row no integer is beyond 64 bits."""

NO_BRACES = bytes(set(range(256)) - set(b"{}"))
BACKSLASH = ord("\\")

NOT_PLAIN: Final = object()

Path: TypeAlias = "tuple[Path | None, str | int]"
"""Where a value is, from the inside out; the root is under None. Only rendered when there is a problem to show."""


def check_value(value: Any, *, pointer: str = "", max_depth: int = MAX_DEPTH) -> list[FieldProblem]:
    """Everything that keeps a Python object from being a JSON value that BSON can carry; empty when nothing does.

    Takes any object whatever. `pointer` is where the value itself stands, `max_depth` is for what wraps a value.
    Stops after `MAX_PROBLEMS`."""
    if _is_sound(value, max_depth):
        return []
    found = islice(_defects(value, max_depth), MAX_PROBLEMS)
    return [FieldProblem(pointer + render_pointer(path), detail) for path, detail in found]


def decode_json(body: bytes) -> JsonValue:
    """Parse one JSON text in UTF-8. What it says is not checked yet: `check_value` must see it before anybody
    else does. Raises `InvalidJob` when it is no JSON text at all."""
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed(f"is not UTF-8: byte {error.start} cannot be decoded") from None
    except json.JSONDecodeError as error:
        if body.startswith(codecs.BOM_UTF8):  # nobody sees it
            raise _malformed("is not JSON: it begins with a byte order mark; send UTF-8 without one") from None
        raise _malformed(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        # The scanner gives up at the interpreter's limit, in linear time and far beyond what is allowed.
        raise _malformed(TOO_DEEP) from None


def decode_plain(body: bytes, *, most_bytes: int = PLAIN_BYTES, max_depth: int = MAX_DEPTH) -> JsonValue:
    """What `decode_json` makes of a JSON text in which `check_value` finds nothing wrong, in a third of the time of
    both; `NOT_PLAIN` when a glance cannot tell that it is such a one."""
    # Bytes are looked for by `find`: `in` takes them for a number at first, which costs seven times as much.
    if len(body) > most_bytes or BACKSLASH in body:
        return NOT_PLAIN
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        return NOT_PLAIN
    # Without escapes a colon stands behind a key or, as it is, in a string. So as many are written as were read unless
    # a member is gone, as the first of two with the same key is.
    written = to_json(value)
    if written.count(b":") != body.count(b":") or written.find(b"Infinity") >= 0:
        return NOT_PLAIN
    # Most are seen to be right with what stands in strings.
    if body.count(b"{") + body.count(b"[") > max_depth or body.translate(SHAPE).find(LONG_NUMBER) >= 0:
        shape = b"".join(body.split(b'"')[::2]).translate(SHAPE)  # without it
        if shape.find(LONG_NUMBER) >= 0 or _is_deeper(shape, max_depth):
            return NOT_PLAIN
    return value


def render_pointer(path: Path) -> str:
    """Write a path as an RFC 6901 JSON pointer."""
    parts = []
    above, key = path
    while above is not None:
        parts.append("/" + escape_pointer(str(key)))
        above, key = above
    return "".join(reversed(parts))


def escape_pointer(key: str) -> str:
    """One step of an RFC 6901 JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _is_sound(value: Any, levels: int) -> bool:
    """Whether nothing is wrong with a value, in a fraction of the time of the walk that tells what is. The types are
    those that the decoder makes; False is no verdict yet. Stops at the first doubt."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_well_formed(value)
    if kind is dict:
        return levels > 0 and _are_sound(value, value.values(), levels - 1)
    if kind is list:
        return levels > 0 and _are_sound((), value, levels - 1)
    if kind is int:
        return value in INT64
    return value is None or kind is bool or (kind is float and isfinite(value))


def _are_sound(keys: Iterable[Any], values: Iterable[Any], levels: int) -> bool:
    for key in keys:
        if type(key) is not str or "\0" in key or not (key.isascii() or _is_well_formed(key)):
            return False
    for value in values:  # noqa: SIM110 (a generator would cost as much as what it asks)
        if not _is_sound(value, levels):
            return False
    return True


def _defects(value: Any, max_depth: int) -> Iterator[tuple[Path, str]]:
    # Depth first with an iterator a level: whoever sends millions of values pays with none of our memory.
    levels: list[tuple[Path | None, Iterator[tuple[str | int, Any]]]] = [(None, iter([("", value)]))]
    while levels:
        above, children = levels[-1]
        for key, child in children:
            if isinstance(child, str):
                if not child.isascii() and not _is_well_formed(child):
                    yield (above, key), "has half of a surrogate pair, which is no character"
            elif isinstance(child, int):
                if child not in INT64:
                    yield (above, key), "is an integer beyond 64 bits; send it as a string"
            elif isinstance(child, float):
                if not isfinite(child):
                    yield (above, key), "is not a finite number that fits into 64 bits"
            elif isinstance(child, dict | list | tuple):
                path = (above, key)
                if len(levels) > max_depth:
                    yield path, TOO_DEEP
                    continue
                if isinstance(child, dict):
                    yield from _key_defects(path, child)
                levels.append((path, iter(child.items() if isinstance(child, dict) else enumerate(child))))
                break
            elif child is not None:
                yield (above, key), f"is of type {type(child).__name__}, which is no JSON value"
        else:
            levels.pop()


def _key_defects(path: Path, members: dict[Any, Any]) -> Iterator[tuple[Path, str]]:
    if isinstance(members, _RepeatedKeys):
        for key in members.repeated:
            yield (path, key), "is there more than once"
    for key in members:
        if not isinstance(key, str):
            yield path, f"has a key of type {type(key).__name__}; keys are strings"
        elif "\0" in key:
            yield (path, key), "has a NUL character in its name"
        elif not key.isascii() and not _is_well_formed(key):
            yield (path, key), "has half of a surrogate pair in its name"


def _is_deeper(shape: bytes, levels: int) -> bool:
    braces = shape.translate(None, NO_BRACES)
    for _ in range(levels):
        if not braces:
            return False
        braces = braces.replace(b"{}", b"")  # the innermost ones
    return bool(braces)


def _is_well_formed(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _RepeatedKeys(dict[str, Any]):
    """An object in which keys came more than once: the mark that the decoder leaves for the walk."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _RepeatedKeys(pairs)


def _read_int(digits: str) -> int:
    # int() takes quadratic time and refuses more than 4,300 digits; whatever is this long is out of range.
    return int(digits) if len(digits) <= LONGEST_INT64 else BEYOND_INT64


def _malformed(detail: str) -> InvalidJob:
    return InvalidJob([FieldProblem("", detail)])


_DECODER = json.JSONDecoder(object_pairs_hook=_read_object, parse_int=_read_int)
