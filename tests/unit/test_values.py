"""Which JSON values may enter, and that nothing hostile takes the reader down."""

from __future__ import annotations

import json
from collections import OrderedDict
from enum import StrEnum
from random import Random
from typing import Any

import pytest

from jobqueue.errors import FieldProblem, InvalidJob
from jobqueue.values import (
    MAX_DEPTH,
    MAX_PROBLEMS,
    NOT_PLAIN,
    PLAIN_BYTES,
    check_value,
    decode_json,
    decode_plain,
    escape_pointer,
)


def problems_of(body: bytes) -> list[FieldProblem]:
    """What is wrong with a JSON text, whether it shows in parsing or in checking."""
    try:
        return check_value(decode_json(body))
    except InvalidJob as error:
        return list(error.problems)


def nested_arrays(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -0.0,
        2**63 - 1,
        -(2**63),
        1.7976931348623157e308,
        5e-324,
        "",
        "a\0b",
        "\ufeff übung 😀",
        {"": 1, "$set": {"a.b": 2}, "$ref": "x", "$id": 1},
        [[], {}, [None]],
    ],
)
def test_what_may_enter_comes_out_of_its_json_text_as_it_was(value: Any) -> None:
    body = json.dumps(value).encode()

    decoded = decode_json(body)

    assert decoded == value
    assert check_value(decoded) == []


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (b'{"a": 9223372036854775808}', "/a", "64 bits"),
        (b'{"a": -9223372036854775809}', "/a", "64 bits"),
        (b'{"a": ' + b"9" * 4_400 + b"}", "/a", "64 bits"),
        (b'{"a": -' + b"9" * 100_000 + b"}", "/a", "64 bits"),
        (b'{"a": [0, NaN]}', "/a/1", "finite"),
        (b'{"a": Infinity}', "/a", "finite"),
        (b'{"a": -Infinity}', "/a", "finite"),
        (b'{"a": 1e400}', "/a", "finite"),
        (b'{"a": {"b": 1, "b": 2}}', "/a/b", "more than once"),
        (b'{"a": 1, "\\u0061": 2}', "/a", "more than once"),
        (b'{"a": {"b\\u0000c": 1}}', "/a/b\0c", "NUL"),
        (b'{"a": ["\\ud800"]}', "/a/0", "surrogate"),
        (b'{"a": "\\udc00\\ud800"}', "/a", "surrogate"),
        (b'{"a": {"\\udfff": 1}}', "/a/\udfff", "surrogate"),
        (b'{"a/b": {"c~d": NaN}}', "/a~1b/c~0d", "finite"),
    ],
)
def test_a_value_that_cannot_be_stored_is_named_by_its_pointer(body: bytes, pointer: str, detail: str) -> None:
    (problem,) = problems_of(body)

    assert problem.pointer == pointer
    assert detail in problem.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nul",
        b"[1,]",
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"a": 1}}',
        b'{"a": "\n"}',
        b'{"a": "\\x"}',
        b'{"a": +1}',
        b'{"a": 0x1}',
        b'{"a": 1.}',
        b"// no\n{}",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
    ],
)
def test_what_is_no_json_text_in_utf_8_is_refused_with_the_place_where_it_stops_to_be_one(body: bytes) -> None:
    with pytest.raises(InvalidJob, match=r"is not JSON|is not UTF-8") as caught:
        decode_json(body)

    assert caught.value.problems[0].pointer == ""


def test_sixty_four_levels_may_be_nested_and_no_more() -> None:
    assert problems_of(nested_arrays(MAX_DEPTH)) == []

    (problem,) = problems_of(nested_arrays(MAX_DEPTH + 1))

    assert problem == FieldProblem("/0" * MAX_DEPTH, "is nested deeper than 64 levels")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, nested_arrays(100_000), b"[" * 5_000_000])
def test_hostile_nesting_is_refused_and_never_ends_in_a_recursion_error(body: bytes) -> None:
    (problem,) = problems_of(body)

    assert problem.detail == "is nested deeper than 64 levels"


def test_all_problems_are_found_at_once_but_no_more_than_a_handful() -> None:
    two = check_value({"a": float("nan"), "b": [2**64]})
    many = check_value([float("inf")] * 100_000)

    assert {problem.pointer for problem in two} == {"/a", "/b/0"}
    assert len(many) == MAX_PROBLEMS


@pytest.mark.parametrize(("levels", "too_deep"), [(0, [""]), (1, ["/0"]), (2, ["/0/a"]), (3, [])])
def test_so_many_levels_are_taken_and_not_one_more(levels: int, too_deep: list[str]) -> None:
    problems = check_value(decode_json(b'[{"a": [1]}]'), max_depth=levels)

    assert [problem.pointer for problem in problems] == too_deep


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize("value", [Colour.RED, (1, 2), OrderedDict(a=1)])
def test_what_python_treats_as_a_json_value_is_one(value: Any) -> None:
    assert check_value(value) == []


class Opaque:
    def __repr__(self) -> str:
        raise AssertionError("nobody may ask for this")


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        ({1, 2}, "", "is of type set, which is no JSON value"),
        (b"bytes", "", "is of type bytes, which is no JSON value"),
        ([Opaque()], "/0", "is of type Opaque, which is no JSON value"),
        ({1: 2}, "", "has a key of type int; keys are strings"),
    ],
)
def test_anything_else_that_a_task_returns_is_a_problem_and_no_exception(value: Any, pointer: str, detail: str) -> None:
    assert check_value(value) == [FieldProblem(pointer, detail)]


def test_a_value_that_contains_itself_is_too_deep() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert [problem.detail for problem in check_value(endless)] == ["is nested deeper than 64 levels"]


def test_a_value_that_contains_itself_many_times_is_given_up_soon() -> None:
    endless: list[Any] = []
    endless.extend([endless] * 10)

    assert len(check_value(endless)) == MAX_PROBLEMS


def test_problems_come_in_the_order_of_the_text() -> None:
    body = b'{"a": [NaN, {"b": NaN}], "c": {"d": NaN}, "e": NaN}'

    assert [problem.pointer for problem in problems_of(body)] == ["/a/0", "/a/1/b", "/c/d", "/e"]


def test_pointers_begin_where_the_value_stands() -> None:
    assert check_value([float("nan")], pointer="/result")[0].pointer == "/result/0"
    assert escape_pointer("a/b~c") == "a~1b~0c"


STRUCTURE = ("{", "}", "[", "]", ",", ":", " ", "\t", "\f")
KEYS = ('"a"', '"b"', '"a:b"', '"type"', '""', '"{"', '"}]"')
NUMBERS = (
    *("0", "-0", "-0.0", "01", "1.5", "1.", ".5", "1e5", "1E+2", "1e400", "-1e400", "5e-324", "0.30000000000000004"),
    *("1" * 18, "9" * 19, "1" * 400, "1.7976931348623159e308", "NaN", "Infinity", "-Infinity"),
)
TEXTS = ('"NaN"', '"\\u0000"', '"\\u003a"', '"\\ud800"', '"\xe4"', '"\x01"', '"\x00"', "\ufeff", "'a'", "//")
VALUES = (*KEYS, *NUMBERS, *TEXTS, "null", "true")
"""What texts are made of that are JSON, nearly JSON, or hold what may not enter."""


def _text(random: Random, levels: int) -> str:
    """A JSON text, but for what a piece spoils."""
    if levels == 0 or random.random() < 0.3:
        return random.choice(VALUES)
    items = [_text(random, levels - 1) for _ in range(random.randrange(4))]
    if random.random() < 0.4:
        return "[" + ", ".join(items) + "]"
    return "{" + ",".join(f"{random.choice(KEYS)}: {item}" for item in items) + "}"


def _is_plain(body: bytes, *, max_depth: int = MAX_DEPTH) -> bool:
    """Whether it was taken at a glance; then the walk must have nothing against it."""
    value = decode_plain(body, max_depth=max_depth)
    if value is NOT_PLAIN:
        return False
    slowly = decode_json(body)
    assert check_value(slowly, max_depth=max_depth) == []
    assert json.dumps(value) == json.dumps(slowly)  # tells 1 from 1.0 and from true, 0.0 from -0.0
    return True


@pytest.mark.parametrize("max_depth", [MAX_DEPTH, 2], ids=["as deep as may be", "less deep than most"])
def test_what_is_taken_at_a_glance_is_what_the_walk_would_have_taken(max_depth: int) -> None:
    random = Random(20260202)

    texts = [_text(random, 4) for _ in range(20_000)]
    soups = ["".join(random.choices(STRUCTURE + VALUES, k=random.randrange(1, 8))) for _ in range(20_000)]
    taken = [text for text in texts + soups if _is_plain(text.encode(), max_depth=max_depth)]

    assert len(taken) > 2_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b",".join([b'{"a": ["{", "[[", 12345678901234567]}'] * 40) + b"]",
        b'["' + b"7" * 40 + b'"]',
        b"[" * MAX_DEPTH + b"7" + b"]" * MAX_DEPTH,
    ],
    ids=["many brackets", "digits of a text", "the deepest"],
)
def test_what_stands_in_texts_is_no_doubt(body: bytes) -> None:
    assert _is_plain(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "a": "\\u003a"}',  # an escape that makes up for the colon that is gone
        b'{"a": {"b": 1}, "a": {"b": 1}}',
        b'{"a:": 1, "a:": 2}',
        b"[1e400]",
        b"[9223372036854775808]",
        b'["\\ud800"]',
        b"[" * MAX_DEPTH + b"[]" + b"]" * MAX_DEPTH,
        b'"\xed\xa0\x80"',
        b'"' + b"x" * PLAIN_BYTES + b'"',
    ],
)
def test_in_case_of_doubt_the_walk_decides(body: bytes) -> None:
    assert not _is_plain(body)
