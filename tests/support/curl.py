"""Commands of documents, run by a shell as they stand there; curl also tells the status of the answer."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import end_of

SECONDS = 60.0


class Shell:
    """Runs commands in which curl, by its own file of settings, writes the status below the body."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no curl. The settings are kept in `folder`."""
        if shutil.which("curl") is None:
            pytest.skip("curl is not on the PATH")
        (folder / ".curlrc").write_text('write-out = "\\n%{http_code}"\n')
        self._environment = {**os.environ, "CURL_HOME": str(folder), "HOME": str(folder)}

    async def run(self, command: str) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        code, output, errors = await end_of(process, seconds=SECONDS)
        assert code == 0, errors
        body, _, status = output.rpartition("\n")
        return int(status), json.loads(body)
