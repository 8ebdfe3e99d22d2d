"""What a scraper makes of an answer: prometheus-client's own parsers, with types."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families


def families_in(text: str, content_type: str) -> Sequence[Metric]:
    """The families of an answer with this content type."""
    if content_type.startswith("application/openmetrics-text"):
        return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    return list(text_string_to_metric_families(text))
