"""Cursors are read as they were written, or not at all."""

from __future__ import annotations

import string

import pytest

from jobqueue.api import cursor
from jobqueue.api.cursor import LENGTH, decode_cursor, encode_cursor

BASE64URL = string.ascii_letters + string.digits + "-_"


@pytest.mark.parametrize("before", [0, 1, -1, 1_790_000_000_000_000, 2**63 - 1, -(2**63)])
def test_a_cursor_says_the_position_that_it_was_made_of(before: int) -> None:
    text = encode_cursor(before)

    assert decode_cursor(text) == before
    assert len(text) == LENGTH
    assert set(text) <= set(BASE64URL)


def test_a_cursor_with_any_one_character_changed_is_refused() -> None:
    text = encode_cursor(1_790_000_000_000_123)

    for position in range(LENGTH):
        for character in BASE64URL:
            if character != text[position]:
                with pytest.raises(ValueError, match=r"checksum|version"):
                    decode_cursor(text[:position] + character + text[position + 1 :])


@pytest.mark.parametrize("text", ["", "x", "A" * 15, "A" * 17, "A" * 16, "!" * 16, "ä" * 16, "AAAAAAAAAAAAAA=="])
def test_what_was_never_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"length|base64|checksum|version"):
        decode_cursor(text)


def test_a_cursor_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(cursor, "VERSION", cursor.VERSION + 1)
        from_later = encode_cursor(5)

    with pytest.raises(ValueError, match="unknown version"):
        decode_cursor(from_later)
