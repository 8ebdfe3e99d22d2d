"""What a person sees when the service is up: where it is, where its data is, and three calls to try."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobqueue import __version__
from jobqueue.logs import mask_credentials

EXAMPLE = {"type": "email", "payload": {"to": "user@example.com", "subject": "Welcome", "body": "Hello!"}}
PAGES = {"documentation": "/docs"}
PAGES_OF_A_WORKER = {"metrics": "/metrics", "liveness": "/livez", "readiness": "/readyz"}
"""A process without the whole API shows only how it is."""

FILL_IN = "<payload>"
"""The payload of an example whose task takes one, which only its author knows."""

_SIMULATION = """\
  Simulation is on: a job whose type has no task sleeps briefly and completes; nothing real is done.
  For real work write tasks and start with --tasks your_module."""


def compose(
    *,
    base_url: str | None,
    mongodb_uri: str,
    database: str,
    simulate: bool,
    example: Mapping[str, Any] | None,
    pages: Mapping[str, str],
    processes: int = 1,
) -> str:
    """The banner. `example` is the job to post in the calls, if there are to be any; no job should have its id yet.
    `pages` are the paths to look at below `base_url`, by what is there."""
    several = f", in {processes} processes" if processes > 1 else ""
    paragraphs = [f"jobqueue {__version__} is ready{several}.", _places(base_url, pages, mongodb_uri, database)]
    if simulate:
        paragraphs.append(_SIMULATION)
    if base_url and example is not None:
        paragraphs.append(_calls(base_url, example))
    return "\n\n".join(paragraphs) + "\n"


def _places(base_url: str | None, pages: Mapping[str, str], mongodb_uri: str, database: str) -> str:
    named = ", ".join(f"{what}: {base_url}{path}" for what, path in pages.items())
    lines = [f"  HTTP     {base_url}  ({named})"] if base_url else []
    return "\n".join([*lines, f"  MongoDB  mongosh '{mask_credentials(mongodb_uri)}', then: use {database}"])


def _calls(base_url: str, example: Mapping[str, Any]) -> str:
    filling_in = f', with what the task takes in place of "{FILL_IN}"' if example.get("payload") == FILL_IN else ""
    return "\n".join(
        [
            f"  Try it{filling_in}:",
            f"    curl -s {base_url}/jobs -H 'Content-Type: application/json' -d '{json.dumps(example)}'",
            f"    curl -s '{base_url}/jobs/{example['id']}?wait=5'",
            f"    curl -s {base_url}/jobs",
        ]
    )
