"""Which form of the metrics a client wants, by its Accept header (RFC 9110, section 12.5.1).

Prometheus names the text forms, each with a quality, and says `*/*` as well; browsers and curl name neither. So a text
form counts only where it is named, and JSON is what everybody else gets. Clients that name both equally (axios does)
get JSON: Prometheus never names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain"
TEXTS = (TEXT, OPENMETRICS)
JSON_RANGES = ("application/json", "application/*", "*/*")
"""What JSON falls under, the most specific first."""

VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}")
"""Of a text form; what is none is as if it was left out."""


class MediaRange(NamedTuple):
    """One item of an Accept header."""

    kind: str
    quality: float
    text: str


def text_wanted(accept: Sequence[str]) -> str | None:
    """The media range, with its parameters, of the text form to answer with; None for JSON."""
    ranges = [_read(item) for header in accept for item in header.split(",") if item.strip()]
    texts = [each for each in ranges if each.kind in TEXTS and each.quality > 0]
    if not texts:
        return None
    # Of equals the first: the newer version stands in front.
    best = max(texts, key=lambda each: each.quality)
    json, named = _json_quality(ranges)
    return best.text if best.quality > json or (best.quality == json and not named) else None


def _json_quality(ranges: Iterable[MediaRange]) -> tuple[float, bool]:
    """The quality of JSON, and whether it is named."""
    qualities = {each.kind: each.quality for each in ranges}
    kind = next((kind for kind in JSON_RANGES if kind in qualities), None)
    return (qualities[kind], kind == JSON_RANGES[0]) if kind else (0.0, False)


def _read(item: str) -> MediaRange:
    kind, *parameters = [part.strip() for part in item.split(";")]
    quality, kept = 1.0, [kind.lower()]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            quality = _quality(value)
        elif name.strip().lower() != "version" or VERSION.fullmatch(value):
            kept.append(parameter)
    return MediaRange(kept[0], quality, ";".join(kept))


def _quality(value: str) -> float:
    try:
        return min(max(0.0, float(value)), 1.0)
    except ValueError:
        return 0.0
