"""The documentation page in a real browser, where there is one: its policy lets it do all that it needs."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from jobqueue.api import docs

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TATTLE = """
document.addEventListener("securitypolicyviolation", (event) => {
  document.title = `violated: ${event.violatedDirective} by ${event.blockedURI}`;
});
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium here to show the page")
async def test_a_browser_shows_how_to_post_a_job_and_nothing_violates_the_policy(
    client: TestClient[web.Request, web.Application], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "SCRIPT", TATTLE + docs.SCRIPT)

    page = await rendered(str(client.make_url("/docs#/jobs/createJob")), tmp_path)

    assert "<title>jobqueue API</title>" in page
    for shown in ("opblock-post", "Enqueue a job", "Try it out", "Request body"):
        assert shown in page


async def rendered(url: str, folder: Path) -> str:
    """The page as the browser has it when all its scripts have run."""
    assert BROWSER is not None
    process = await asyncio.create_subprocess_exec(
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
        "--virtual-time-budget=20000", "--dump-dom", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            return (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
