"""Where the next page begins, as a text that clients hand back unread.

Base64url of version, sequence number and a checksum: exactly sixteen characters. The checksum keeps a cursor
that was cut, mistyped or made up from silently showing another page; it is no protection against intent, and
needs none, since every position is one that the client may ask for anyway.
"""

from __future__ import annotations

import base64
import binascii
import struct

VERSION = 1
POSITION = struct.Struct(">Bq")
CHECKSUM_BYTES = 3
LENGTH = 16


def encode_cursor(before: int) -> str:
    """The cursor of the page that begins just before this sequence number."""
    position = POSITION.pack(VERSION, before)
    return base64.urlsafe_b64encode(position + _checksum(position)).decode("ascii")


def decode_cursor(cursor: str) -> int:
    """The sequence number in a cursor. Raises ValueError when it is none of ours."""
    if len(cursor) != LENGTH or not cursor.isascii():
        raise ValueError("wrong length")
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    position, checksum = raw[: POSITION.size], raw[POSITION.size :]
    if checksum != _checksum(position):
        raise ValueError("wrong checksum")
    version, before = POSITION.unpack(position)
    if version != VERSION:
        raise ValueError("unknown version")
    return int(before)


def _checksum(position: bytes) -> bytes:
    return binascii.crc32(position).to_bytes(4, "big")[-CHECKSUM_BYTES:]
