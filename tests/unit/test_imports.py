"""Imports point one way: api -> service -> the ports -> job, retry, errors; and only the adapter knows a driver."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import jobqueue

PACKAGE = Path(jobqueue.__file__).parent
DRIVERS = {"motor", "pymongo", "bson", "gridfs"}
ENGINE = {"worker", "poller", "maintenance", "leases", "attempt", "execution", "tasks", "context", "threads"}

MAY_IMPORT = {
    "job": set(),
    "retry": {"job"},
    "repository": {"job", "errors"},
    "batching": {"errors"},
    "service": {
        "admission",
        "batching",
        "clock",
        "dispatch",
        "errors",
        "following",
        "idempotency",
        "job",
        "repository",
        "telemetry",
        "values",
    },
    "idempotency": {"errors", "job"},
    "admission": {"clock", "depth", "errors", "rate_limit", "repository"},
    "telemetry": {"job"},
}
"""All that these modules may know of this package."""

MUST_NOT_IMPORT = {
    "api": {"mongo", "driver", "batching", "app", "cli", "embedded", *ENGINE},
    "mongo": {"api", "service", "app", "cli", "driver", "embedded", "settings", *ENGINE},
    **{name: {"api", "service", "mongo", "driver", "app", "cli"} for name in ENGINE},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, by its name in it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of everything that is imported when the module runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def own(names: Iterator[str]) -> set[str]:
    """The first part, below this package, of the names that belong to it."""
    return {name.split(".")[1] for name in names if name.startswith("jobqueue.") and not name.endswith("__version__")}


def test_only_the_adapter_and_the_driver_module_import_a_driver() -> None:
    importers = {
        name.split(".")[0] for name, tree in modules() if DRIVERS & {each.split(".")[0] for each in imported(tree)}
    }

    assert importers == {"mongo", "driver"}


def test_only_the_composition_root_knows_the_adapter() -> None:
    importers = {name.split(".")[0] for name, tree in modules() if own(imported(tree)) & {"mongo", "driver"}}

    assert importers - {"mongo"} == {"app", "driver"}


def test_only_its_adapter_knows_prometheus_and_the_engine_knows_neither() -> None:
    trees = dict(modules())

    assert [name for name, tree in trees.items() if "prometheus_client" in _roots(tree)] == ["prometheus"]
    assert not [name for name in trees if name.split(".")[0] in ENGINE | {"mongo", "service"} and _knows(trees[name])]


def _roots(tree: ast.AST) -> set[str]:
    return {each.split(".")[0] for each in imported(tree)}


def _knows(tree: ast.AST) -> bool:
    return "prometheus" in own(imported(tree))


def test_the_core_knows_only_what_is_below_it() -> None:
    for name, tree in modules():
        if name in MAY_IMPORT:
            assert own(imported(tree)) <= MAY_IMPORT[name], name


def test_nothing_imports_upwards() -> None:
    for name, tree in modules():
        forbidden = MUST_NOT_IMPORT.get(name.split(".")[0], set())
        assert not own(imported(tree)) & forbidden, name


def test_no_two_parts_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for name, tree in modules():
        part = name.split(".")[0]
        graph.setdefault(part, set()).update(own(imported(tree)) - {part})

    TopologicalSorter(graph).prepare()
