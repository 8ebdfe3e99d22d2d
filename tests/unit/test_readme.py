"""What the documents say of the code, compared with the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import jobqueue.demo
from jobqueue.cli import demo
from jobqueue.job import MOVES, Status
from jobqueue.loading import load
from jobqueue.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


def section(name: str) -> str:
    found = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_picture_of_the_states_shows_every_move_and_no_other() -> None:
    drawn = re.findall(r"^ +(\S+) --> (\w+): (.+)$", section("States"), re.MULTILINE)

    shown = {(source, target, move) for source, target, moves in drawn for move in moves.split(", ")}

    legal = {(s.value, t.value, name) for name, move in MOVES.items() for s in move.sources for t in move.targets}
    enqueued = {("[*]", Status.PENDING.value, "enqueue"), ("[*]", Status.SCHEDULED.value, "enqueue")}
    assert shown == legal | enqueued


def test_the_table_of_settings_shows_every_setting_with_its_default() -> None:
    table = "\n".join(settings_table())

    assert table in section("Settings"), f"it should be:\n{table}"
    assert section("Settings").count(PREFIX) == len(Settings.model_fields)


def settings_table() -> Iterator[str]:
    yield "| Variable | Default | Meaning |"
    yield "|---|---|---|"
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{written(field.default)}`"
        meaning = f"{field.description}{choices(field.annotation)}".replace("*", r"\*")
        yield f"| `{PREFIX}{name.upper()}` | {default} | {meaning} |"


def choices(annotation: Any) -> str:
    return f" (`{'`, `'.join(get_args(annotation))}`)" if get_origin(annotation) is Literal else ""


def written(default: Any) -> str:
    """A default as one would type it."""
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:.12g}" if isinstance(default, float) else str(default)


def test_the_example_of_a_task_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "readme_example.py").write_text("".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)))

    assert [each.name for each in load([str(tmp_path / "readme_example.py")])] == ["email.send"]


def test_how_long_the_demo_takes_is_said_alike() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    for text in (README, changes, demo.help or "", jobqueue.demo.__doc__ or ""):
        assert re.search(r"[Ss]hows? in about ten seconds", text)


def test_the_layout_names_only_what_is_there() -> None:
    paths = re.findall(r"^(\S+/\S*)", section("Layout").split("```")[1], re.MULTILINE)

    assert len(paths) == 11
    assert [path for path in paths if not (ROOT / path.rstrip(",")).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_the_documents_lead_somewhere(document: Path) -> None:
    local = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]

    assert [link for link in local if not (document.parent / link).exists()] == []


def test_the_architecture_names_every_module_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "jobqueue"
    folders = (package, package / "api", package / "api" / "graphql", package / "mongo", package / "demo")
    found = [path for folder in folders for path in folder.glob("*.py")]
    modules = {path.relative_to(package).as_posix() for path in found if path.name != "__init__.py"}

    assert set(re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)) == modules
