"""docs/guarantees.md names tests and modules: each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", TEXT)))
MODULES = sorted(set(re.findall(r"`((?:mongo/|api/)?\w+\.py)`", TEXT)))
PROMISES = re.findall(r"^### (\d)\. (.*?)$(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))

    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_named_exists(module: str) -> None:
    assert (ROOT / "jobqueue" / module).is_file()


def test_every_promise_names_a_test_and_a_module() -> None:
    assert [int(number) for number, _, _ in PROMISES] == [1, 2, 3, 4, 5, 6, 7]
    for _, promise, text in PROMISES:
        assert "::test_" in text, promise
        assert ".py`" in text, promise
