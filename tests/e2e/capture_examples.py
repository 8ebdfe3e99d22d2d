"""Writes real answers into postman_collection.json: `python tests/e2e/capture_examples.py`.

Starts a service on a fresh embedded server, lets newman run the collection, and keeps what it got as the example
of each request. Only what names this machine is replaced. To be run when requests or answers have changed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[1] / "support"
KEPT_HEADERS = ("content-type", "location", "etag", "link")
"""The others change with every answer and say nothing about it."""

LONGEST_EXAMPLE = 16_384
HOST = "worker-1"


async def main() -> int:
    sys.path.insert(0, str(SUPPORT))
    import collection
    from databases import DatabaseProcess
    from node import NodeProgram
    from processes import ServiceProcess

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with DatabaseProcess(folder / "database") as database:
            env = {"JOBQUEUE_MONGODB_URI": database.uri, "JOBQUEUE_PORT": "0", "JOBQUEUE_SIMULATE": "true"}
            async with ServiceProcess("serve", env=env) as service:
                newman = NodeProgram.find("newman")
                ended, executions = await collection.run_newman(newman, service.url, folder=folder)
    if ended.code:
        print(ended.output, ended.errors, file=sys.stderr)
        return 1
    whole = collection.read()
    for item, execution in zip(collection.requests_of(whole), executions, strict=True):
        item["response"] = list(examples(item, execution["response"]))
    collection.PATH.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def examples(item: Mapping[str, Any], response: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The example of one request, unless its answer is a whole document."""
    text = anonymous(bytes(response.get("stream", {}).get("data", [])).decode())
    if len(text) <= LONGEST_EXAMPLE and not text.startswith("<"):
        yield {
            "name": f"{response['code']} {response['status']}",
            "originalRequest": item["request"],
            "status": response["status"],
            "code": response["code"],
            "_postman_previewlanguage": "json",
            "header": [each for each in response["header"] if each["key"].lower() in KEPT_HEADERS],
            "cookie": [],
            "body": json.dumps(json.loads(text), indent=2, ensure_ascii=False) if text else "",
        }


def anonymous(text: str) -> str:
    """The name of this machine, as a worker's host and as the beginning of its id, replaced."""
    machine = socket.gethostname()
    return text.replace(f'"{machine}"', f'"{HOST}"').replace(f'"{machine}:', f'"{HOST}:')


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
