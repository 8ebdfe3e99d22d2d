"""Thousands of requests, good and bad, made of the OpenAPI document: each answer is one that it describes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from observers import WITNESSED
from processes import ROOT, ServiceProcess, run_command

Settings = Callable[..., dict[str, str]]
CONFIG = str(ROOT / "tests" / "support" / "schemathesis.toml")


async def test_every_answer_to_generated_requests_is_one_that_the_document_describes(
    settings_for: Settings, tmp_path: Path
) -> None:
    async with ServiceProcess("serve", "--tasks", WITNESSED, env=settings_for()) as service:
        code, report, errors = await run_command(
            *("-m", "schemathesis.cli", "--config-file", CONFIG, "run", "--no-color", f"{service.url}/openapi.json"),
            program=(),
            env={},
            cwd=tmp_path,
            seconds=110,
        )
        mishaps = [event for event in service.events if event.get("level") == "error"]

    assert code == 0, report + errors
    assert mishaps == []
