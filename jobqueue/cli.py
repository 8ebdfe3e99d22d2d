"""The commands. They read the settings, provide a database, and hand over to `process.run`, or
`fleet.run_fleet` where several processes are wanted.

Exit codes: 0 all went well, 1 it could not (one sentence on standard error says why), 2 wrong usage.
Standard output is for people; the log goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from jobqueue import __version__, banner, logs
from jobqueue.builtin import BUILT_IN, simulation
from jobqueue.doctor import DEFAULT_LIMIT, Examination, as_text, examine, treat
from jobqueue.embedded import EmbeddedServer, join
from jobqueue.errors import ConfigurationError, JobQueueError
from jobqueue.job import DEFAULT_NAME
from jobqueue.loading import load
from jobqueue.loop import loop_factory, open_standard_streams, run_to_the_end
from jobqueue.settings import ALL_QUEUES, PREFIX, Settings, load_settings
from jobqueue.tasks import Registry, Task

INTERRUPTED = 130
"""Exit code of Ctrl-C before the service is up, and of a demo that did not come to its end. A service that is up is
stopped by Ctrl-C in order, with code 0."""

Command = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Roles:
    """What a process does. One that does both may bring its own database."""

    http: bool
    workers: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, by default those of the process; returns the exit code."""
    open_standard_streams()
    try:
        code = program.main(arguments and list(arguments), prog_name="jobqueue", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except JobQueueError as error:
        click.echo(f"jobqueue: {logs.mask_credentials(str(error))}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    return int(code or 0)


class _Program(click.Group):
    """The group of commands, with the settings at the end of its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings (environment variables; an option wins over its variable)"):
            formatter.write_dl(list(_settings_described()), col_max=40)
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [("0", "all went well"), ("1", "it did not; one sentence says why"), ("2", "wrong usage")]
            )


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def program() -> None:
    """A job service on MongoDB: jobs come in over HTTP, are kept as documents, and are run by asyncio workers.

    To try it, run `jobqueue serve`: it brings a small database of its own. For real work set JOBQUEUE_MONGODB_URI
    to a MongoDB replica set, write tasks, and run `jobqueue serve --tasks your_module`; or, on as many machines as
    you like, `jobqueue api --tasks your_module` and `jobqueue worker --tasks your_module`.

    The URI is no option on purpose: it may hold a password, and everybody on a machine can read command lines.
    """


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_TASKS = click.option(
    "--tasks",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Load the tasks of this module (my.tasks) or file (tasks.py). May be repeated.",
)
_HOST = click.option("--host", help="Address to listen on.")
_PORT = click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
_PROCESSES = click.option("--processes", type=int, help="Processes to start, all on one port.")
_WORKERS = click.option("--workers", type=int, help="Jobs to run at the same time in each process.")
_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the embedded server.")


@program.command()
@_options(_TASKS, _HOST, _PORT, _PROCESSES, _WORKERS, _DATA_DIR)
def serve(modules: tuple[str, ...], **overrides: Any) -> int:
    """HTTP and workers in one process, or in each of --processes.

    Without JOBQUEUE_MONGODB_URI it starts the embedded server, for trying things out. There and without --tasks it
    only simulates: every job sleeps briefly and completes."""
    return _start(Roles(http=True, workers=True), modules, overrides)


@program.command()
@_options(_TASKS, _HOST, _PORT, _PROCESSES, _DATA_DIR)
def api(modules: tuple[str, ...], **overrides: Any) -> int:
    """HTTP only; workers are other processes.

    It runs no tasks. With --tasks it knows how many attempts each of them allows, and gives them to the jobs that it
    takes. Without JOBQUEUE_MONGODB_URI it joins the embedded server of a `jobqueue serve` with the same data folder."""
    return _start(Roles(http=True, workers=False), modules, overrides)


@program.command()
@_options(_TASKS, _HOST, _PORT, _PROCESSES, _WORKERS, _DATA_DIR)
def worker(modules: tuple[str, ...], **overrides: Any) -> int:
    """Workers only; with a port also health and metrics.

    Without JOBQUEUE_MONGODB_URI it joins the embedded server of a `jobqueue serve` with the same data folder."""
    return _start(Roles(http=False, workers=True), modules, overrides)


@program.command()
def demo() -> int:
    """Show in about ten seconds what the service does.

    It brings a service and a database of its own, which are gone afterwards; no setting is read and no data of yours
    is touched. Ctrl-C ends it early."""
    from rich.console import Console  # here, so that --help does not wait for what only the demo needs

    from jobqueue.demo.stage import demo as play

    logs.configure("ERROR")  # its jobs fail on purpose
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return 0 if runner.run(play(Console())) else INTERRUPTED


@program.command()
@_options(_TASKS)
def tasks(modules: tuple[str, ...]) -> int:
    """List the tasks that --tasks loads; without it, the built-in ones."""
    rows = [_task_described(task) for task in (load(modules) if modules else BUILT_IN)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        )
    return 0


@program.command()
@_options(
    click.option("--fix", is_flag=True, help="Mend what can be mended without losing anything."),
    click.option("--json", "as_json", is_flag=True, help="Report as JSON."),
    click.option(
        "--limit", type=click.IntRange(min=1), default=DEFAULT_LIMIT, help="Newest jobs of each state to read."
    ),
    _DATA_DIR,
)
def doctor(fix: bool, as_json: bool, limit: int, **overrides: Any) -> int:
    """Look for broken invariants in a live database, and say what to do.

    Changes nothing without --fix. Exits with 0 when nothing is found (any more), else with 1. Without
    JOBQUEUE_MONGODB_URI it looks at the embedded server of a `jobqueue serve` with the same data folder."""
    settings = load_settings(**overrides)
    logs.configure(settings.log_level, settings.log_format)
    examination, mended = asyncio.run(_examine(settings, limit=limit, fix=fix))
    if as_json:
        click.echo(json.dumps({**examination.as_json(), "mended": mended}, indent=2))
    else:
        click.echo(as_text(examination, mended))
    return 0 if examination.healthy else 1


async def _examine(settings: Settings, *, limit: int, fix: bool) -> tuple[Examination, Mapping[str, int]]:
    from jobqueue.app import inspecting  # here, so that --help does not wait for drivers to be imported

    lease = timedelta(seconds=settings.lease_seconds)
    uri = join(settings.data_dir) if settings.mongodb_uri is None else settings.mongodb_uri.get_secret_value()
    async with inspecting(settings, uri) as inspector:
        examination = await examine(inspector, lease=lease, limit=limit)
        if not fix:
            return examination, {}
        mended = await treat(inspector, examination)
        return await examine(inspector, lease=lease, limit=limit), mended


def decide_simulation(settings: Settings, roles: Roles, *, has_tasks: bool) -> bool:
    """Whether jobs of types without a task are to be simulated here.

    Raises `ConfigurationError` where this process would run jobs, but has no tasks and is not to simulate."""
    if not roles.workers:
        return False
    embeds = roles.http and settings.mongodb_uri is None
    simulate = settings.simulate if settings.simulate is not None else embeds and not has_tasks
    if not simulate and not has_tasks:
        raise ConfigurationError(
            f"there are no tasks to run: give --tasks your_module, or set {PREFIX}SIMULATE=true to let every job sleep"
            " briefly and complete"
        )
    return simulate


def _start(roles: Roles, modules: Sequence[str], overrides: dict[str, Any]) -> int:
    settings = load_settings(**overrides)
    logs.configure(settings.log_level, settings.log_format)
    simulate = decide_simulation(settings, roles, has_tasks=bool(modules))
    registry = simulation(load(modules)) if simulate else load(modules)
    return run_to_the_end(_serve(settings, roles, modules, registry=registry, simulate=simulate))


async def _serve(
    settings: Settings, roles: Roles, modules: Sequence[str], *, registry: Registry, simulate: bool
) -> int:
    # Imported here, so that --help does not wait for drivers and servers to be imported, nor the supervisor at all.
    async with _database(settings, roles) as uri:
        announce = _announcer(settings, roles, registry, mongodb_uri=uri, simulate=simulate)
        if settings.processes > 1:
            from jobqueue.fleet import run_fleet

            return await run_fleet(
                settings,
                http=roles.http,
                workers=roles.workers,
                modules=modules,
                mongodb_uri=uri,
                simulate=simulate,
                on_ready=announce,
            )
        from jobqueue.process import run

        return await run(
            settings, http=roles.http, workers=roles.workers, registry=registry, mongodb_uri=uri, on_ready=announce
        )


def _announcer(
    settings: Settings, roles: Roles, registry: Registry, *, mongodb_uri: str, simulate: bool
) -> Callable[[str | None], None]:
    """What prints the banner, once the service is up."""

    def announce(base_url: str | None) -> None:
        text = banner.compose(
            base_url=base_url,
            mongodb_uri=mongodb_uri,
            database=settings.database,
            simulate=simulate,
            example=example_of(registry, simulate=simulate, queues=settings.queues) if roles.http else None,
            pages=banner.PAGES if roles.http else banner.PAGES_OF_A_WORKER,
            processes=settings.processes,
        )
        # The service is up, whether or not anybody can be told; a closed file is a ValueError.
        with suppress(OSError, ValueError):
            click.echo(text)

    return announce


@asynccontextmanager
async def _database(settings: Settings, roles: Roles) -> AsyncIterator[str]:
    """The URI of the database: the one that is set, or the embedded server, started here by `serve`."""
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri.get_secret_value()
    elif roles.http and roles.workers:
        async with EmbeddedServer(settings.data_dir, build=settings.embedded_server) as server:
            yield server.uri
    else:
        yield join(settings.data_dir)


def example_of(registry: Registry, *, simulate: bool, queues: Sequence[str]) -> dict[str, Any]:
    """A job for the banner: any will do where it is simulated or left to others. Otherwise one that has a task, and
    a payload to fill in unless a task is there that takes none: what the others take is not known here. It names a
    queue where it would otherwise go into one that is not worked on."""
    chosen: Mapping[str, Any] = banner.EXAMPLE
    if not simulate and len(registry):
        plain = next((task for task in registry if task.parameters.payload is None), None)
        chosen = {"type": plain.name} if plain else {"type": next(iter(registry)).name, "payload": banner.FILL_IN}
    queue = {} if {ALL_QUEUES, DEFAULT_NAME} & set(queues) else {"queue": queues[0]}
    return {"id": f"first-{secrets.token_hex(3)}", **chosen, **queue}


def _task_described(task: Task) -> tuple[str, ...]:
    attempts = f"{task.max_retries or 'default'} attempts"
    timeout = f"{task.timeout_seconds:g} s" if task.timeout_seconds else "default timeout"
    return task.name, attempts, timeout, (task.function.__doc__ or task.place).strip().splitlines()[0]


def _settings_described() -> Iterator[tuple[str, str]]:
    for name, field in Settings.model_fields.items():
        notes = "; ".join([*_choices(field), *_default(field)])
        yield f"{PREFIX}{name.upper()}", f"{field.description} ({notes})" if notes else str(field.description)


def _choices(field: FieldInfo) -> Iterator[str]:
    if get_origin(field.annotation) is Literal:
        yield "|".join(get_args(field.annotation))


def _default(field: FieldInfo) -> Iterator[str]:
    match field.default:
        case None:
            return
        case tuple() as names:
            yield f"default {','.join(names)}"
        case float() as number:
            yield f"default {number:.12g}"
        case other:
            yield f"default {other}"
