"""The Postman collection, read; and run by newman."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from node import Ended, NodeProgram
from processes import ROOT

PATH = ROOT / "postman_collection.json"


def read() -> dict[str, Any]:
    collection: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return collection


def requests_of(folder: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every request of a collection or a folder, in order."""
    for item in folder["item"]:
        if "request" in item:
            yield item
        else:
            yield from requests_of(item)


async def run_newman(
    newman: NodeProgram, base_url: str, *, folder: Path, path: Path = PATH
) -> tuple[Ended, list[dict[str, Any]]]:
    """Run a whole collection, by default ours, against a service; returns how that ended, and every request with its
    answer."""
    export = folder / "newman.json"
    ended = await newman.run(
        "run",
        str(path),
        "--env-var",
        f"baseUrl={base_url}",
        "--reporters",
        "cli,json",
        "--reporter-json-export",
        str(export),
        "--reporter-cli-no-banner",
        "--color",
        "off",
        home=folder,
    )
    executions: list[dict[str, Any]] = json.loads(export.read_text())["run"]["executions"] if export.exists() else []
    return ended, executions
