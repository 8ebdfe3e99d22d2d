"""Find the tasks of the modules that `--tasks` names.

A module's tasks are the functions in its namespace that `@task` decorated (its own and those it imported by
name), those of its submodules that are imported, and those of `Registry` objects in it. Nothing is collected
behind the back of the modules named, so two loads in one process do not see each other's tasks.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from jobqueue.errors import ConfigurationError
from jobqueue.tasks import Registry, Task, declarations

_NOT_THE_USERS = ("<", *(f"{Path(file).parent}{os.sep}" for file in (__file__, importlib.__file__)))
"""How the names of files begin whose lines help no user: code without a file (the import itself, what dataclasses
generate), ours, and importlib's."""


def load(modules: Sequence[str]) -> Registry:
    """Import dotted modules or .py files, the current directory importable, and collect their tasks.

    Raises `ConfigurationError`: a module that cannot be imported (the cause has its traceback), that has no
    tasks, or two tasks of one name."""
    registry = Registry()
    for name in modules:
        module = _import(name)
        found = list(_tasks_of(module, seen=set()))
        if not found:
            remedy = "decorate its functions with @task(...)"
            if hasattr(module, "__path__"):
                remedy += f", or import in its __init__.py the modules that have them, or give --tasks {name}.module"
            raise ConfigurationError(f"there is no task in {name!r}: {remedy}")
        for each in found:
            registry.add(each)
    return registry


def _import(name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            return _import_file(Path(name).resolve())
        _make_importable(os.getcwd())
        return importlib.import_module(name)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise ConfigurationError(f"cannot load tasks from {name!r}: {_explain(error)}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"cannot load tasks from {str(path)!r}: there is no such file")
    # As `python FILE` would: under its own name, its folder importable.
    _make_importable(str(path.parent))
    module = None if path.stem in sys.stdlib_module_names else importlib.import_module(path.stem)
    if module is None or Path(module.__file__ or "").resolve() != path:
        raise ConfigurationError(
            f"cannot load tasks from {str(path)!r}: another module is named {path.stem!r}; rename the file"
        )
    return module


def _make_importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()


def _explain(error: BaseException) -> str:
    described = traceback.format_exception_only(error)[-1].strip()
    place = _place_in_source(error) or _innermost_place(error)
    return f"{described} ({place})" if place else described


def _place_in_source(error: BaseException) -> str | None:
    """Where the text is that Python cannot read: its own file, not the import of it. Code from a string has none."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return f"{error.filename}:{error.lineno}"
    return None


def _innermost_place(error: BaseException) -> str | None:
    """The last line that ran, apart from ours and those of the import; none where nothing of the user's ran."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NOT_THE_USERS)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _tasks_of(module: ModuleType, *, seen: set[int]) -> Iterator[Task]:
    seen.add(id(module))
    for value in _members(module, seen=seen):
        if isinstance(value, Registry):
            yield from value
        elif isinstance(value, ModuleType):
            if value.__name__.startswith(f"{module.__name__}."):
                yield from _tasks_of(value, seen=seen)
        else:
            yield from declarations(value)


def _members(module: ModuleType, *, seen: set[int]) -> Iterable[object]:
    for value in list(vars(module).values()):
        if id(value) not in seen:
            seen.add(id(value))
            yield value
