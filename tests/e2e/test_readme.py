"""The calls of the README, as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable

import pytest
from processes import ROOT, ServiceProcess, end_of


def documented_calls() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (calls,) = [str(block) for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "curl" in block]
    return calls


async def test_the_three_calls_create_a_job_show_it_completed_and_list_it(
    settings_for: Callable[..., dict[str, str]],
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the PATH")
    async with ServiceProcess("serve", env=settings_for(SIMULATE="true")) as service:
        script = documented_calls().replace("http://127.0.0.1:8080", service.url).replace("\ncurl", "\necho\ncurl")

        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, output, _ = await end_of(shell, seconds=60)

    created, finished, jobs = (json.loads(line) for line in output.splitlines())
    assert (created["id"], created["status"], created["retryCount"]) == ("welcome-1", "pending", 0)
    assert (finished["id"], finished["status"], finished["retryCount"]) == ("welcome-1", "completed", 1)
    assert jobs == [finished]
