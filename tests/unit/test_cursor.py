"""Cursors are read as they were written, or not at all."""

from __future__ import annotations

import string

import pytest

from jobqueue.api.cursor import LENGTH, decode_cursor, encode_cursor

BASE64URL = string.ascii_letters + string.digits + "-_"


@pytest.mark.parametrize("before", [0, 1, -1, 1_790_000_000_000_000, 2**63 - 1, -(2**63)])
def test_a_cursor_says_the_position_that_it_was_made_of(before: int) -> None:
    cursor = encode_cursor(before)

    assert decode_cursor(cursor) == before
    assert len(cursor) == LENGTH
    assert set(cursor) <= set(BASE64URL)


def test_a_cursor_with_any_one_character_changed_is_refused() -> None:
    cursor = encode_cursor(1_790_000_000_000_123)

    for position in range(LENGTH):
        for character in BASE64URL:
            if character != cursor[position]:
                with pytest.raises(ValueError, match=r"checksum|version"):
                    decode_cursor(cursor[:position] + character + cursor[position + 1 :])


@pytest.mark.parametrize("cursor", ["", "x", "A" * 15, "A" * 17, "A" * 16, "!" * 16, "ä" * 16, "AAAAAAAAAAAAAA=="])
def test_what_was_never_a_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match=r"length|base64|checksum|version"):
        decode_cursor(cursor)
