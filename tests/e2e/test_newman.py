"""The Postman collection, run from top to bottom by newman against a real service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import collection
from node import NodeProgram
from processes import ServiceProcess


async def test_the_collection_runs_green_from_top_to_bottom_and_again(
    settings_for: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    newman = NodeProgram.find("newman")
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true")) as service:
        for attempt in ("first", "second"):
            folder = tmp_path / attempt
            folder.mkdir()

            ended, executions = await collection.run_newman(newman, service.url, folder=folder)

            assert ended.code == 0, ended.output + ended.errors
            expected = [item["name"] for item in collection.requests_of(collection.read())]
            assert [execution["item"]["name"] for execution in executions] == expected
            assert all(execution["assertions"] for execution in executions)
