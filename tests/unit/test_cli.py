"""The commands, as far as they go without a database: what they explain, refuse and list."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import __version__, banner
from jobqueue.cli import Roles, decide_simulation, example_of, main
from jobqueue.errors import ConfigurationError
from jobqueue.settings import ALL_QUEUES, Settings
from jobqueue.tasks import Registry

SERVE, API, WORKER = Roles(http=True, workers=True), Roles(http=True, workers=False), Roles(http=False, workers=True)

pytestmark = pytest.mark.usefixtures("nothing_is_set")


def test_help_explains_and_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    assert set(re.findall(r"^  JOBQUEUE_(\w+)", text, re.MULTILINE)) == {name.upper() for name in Settings.model_fields}
    flat = " ".join(text.split())
    assert "JOBQUEUE_LEASE_SECONDS how long a worker may be silent" in flat
    assert "(motor|pymongo; default motor)" in flat
    assert "separated by commas; * is every one (default *)" in flat
    assert "..." not in text[text.index("Commands:") : text.index("Settings (")]


def test_standard_streams_that_were_closed_are_opened_before_a_socket_gets_their_number() -> None:
    program = "import os; from jobqueue.cli import main; main(['--version']); [os.fstat(number) for number in range(3)]"
    closing = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-c", program]

    assert subprocess.run(closing, timeout=60).returncode == 0


@pytest.mark.parametrize("command", ["serve", "api", "worker", "tasks", "demo"])
def test_each_command_explains_itself_and_takes_no_uri(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0

    text = capsys.readouterr().out
    assert f"Usage: jobqueue {command}" in text
    assert "--mongodb-uri" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jobqueue {__version__}\n"


@pytest.mark.parametrize("arguments", [["fly"], ["serve", "--fast"], ["api", "--port", "web"], ["api", "--workers"]])
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    printed = capsys.readouterr()
    assert "Error: " in printed.err
    assert printed.out == ""


def test_wrong_settings_and_options_are_all_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBQUEUE_LEASE_SECONDS", "soon")
    monkeypatch.setenv("JOBQUEUE_DRIVER", "pigeon")

    assert main(["serve", "--workers", "0", "--processes", "0"]) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("jobqueue: these settings are wrong:\n")
    assert all(f"JOBQUEUE_{name}: " in printed.err for name in ("LEASE_SECONDS", "DRIVER", "WORKERS", "PROCESSES"))


def test_tasks_lists_the_built_in_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0

    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["echo", "fail", "flaky", "sleep", "unstable-job"]
    assert rows[0].endswith("Return the payload.")


def test_tasks_lists_those_of_a_file_with_their_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mail_tasks_of_a_test.py").write_text(
        "from jobqueue.tasks import task\n"
        "@task('email.send', max_retries=5, timeout=1.5)\n"
        "def send():\n"
        "    '''Send one.'''\n"
    )

    assert main(["tasks", "--tasks", str(tmp_path / "mail_tasks_of_a_test.py")]) == 0

    assert capsys.readouterr().out == "email.send  5 attempts  1.5 s  Send one.\n"


def test_a_module_that_is_not_there_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--tasks", "no.such.module"]) == 1

    printed = capsys.readouterr()
    assert printed.err.startswith("jobqueue: cannot load tasks from 'no.such.module'")
    assert printed.err.count("\n") == 1


def test_a_refusal_never_shows_a_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tmp_path / "failing_tasks_of_a_test.py"
    module.write_text("raise RuntimeError('no answer from mongodb://me:s3cr3t@db/')")

    assert main(["tasks", "--tasks", str(module)]) == 1

    assert "no answer from mongodb://***@db/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("roles", "uri", "simulate", "has_tasks", "decided"),
    [
        # serve on the embedded server: only without tasks, unless the setting says otherwise
        (SERVE, None, None, False, True),
        (SERVE, None, None, True, False),
        (SERVE, None, True, True, True),
        # on a database of the user's: only when the setting says so
        (SERVE, "mongodb://db", None, True, False),
        (SERVE, "mongodb://db", True, False, True),
        (WORKER, None, None, True, False),
        (WORKER, None, True, False, True),
        # a process that runs no jobs simulates none
        (API, None, None, False, False),
        (API, "mongodb://db", True, False, False),
    ],
)
def test_when_jobs_are_simulated(
    roles: Roles, uri: str | None, simulate: bool | None, has_tasks: bool, decided: bool
) -> None:
    settings = Settings.model_validate({"mongodb_uri": uri, "simulate": simulate})

    assert decide_simulation(settings, roles, has_tasks=has_tasks) is decided


@pytest.mark.parametrize(
    ("roles", "uri", "simulate"),
    [(SERVE, "mongodb://db", None), (SERVE, None, False), (WORKER, None, None), (WORKER, "mongodb://db", False)],
)
def test_a_process_that_could_only_fail_its_jobs_refuses_to_start(
    roles: Roles, uri: str | None, simulate: bool | None
) -> None:
    settings = Settings.model_validate({"mongodb_uri": uri, "simulate": simulate})

    with pytest.raises(ConfigurationError, match=r"give --tasks your_module, or set JOBQUEUE_SIMULATE=true"):
        decide_simulation(settings, roles, has_tasks=False)


def test_the_banner_masks_credentials_and_says_what_simulation_means() -> None:
    text = banner.compose(
        base_url="http://127.0.0.1:8080",
        mongodb_uri="mongodb://me:s3cr3t@db/?w=1",
        database="jobs",
        simulate=True,
        example={"id": "first-1", **banner.EXAMPLE},
        pages=banner.PAGES,
    )

    assert "mongosh 'mongodb://***@db/?w=1', then: use jobs" in text
    assert "nothing real is done" in text
    assert text.count("    curl -s ") == 3


def test_the_example_is_a_job_that_its_task_can_take() -> None:
    registry = Registry()
    registry.task("add")(lambda payload: payload)

    assert example_of(registry, simulate=True, queues=(ALL_QUEUES,))["payload"] == banner.EXAMPLE["payload"]
    assert example_of(registry, simulate=False, queues=(ALL_QUEUES,))["payload"] == banner.FILL_IN

    registry.task("sweep")(lambda: None)
    assert example_of(registry, simulate=False, queues=(ALL_QUEUES,)).keys() == {"id", "type"}
    assert example_of(registry, simulate=False, queues=(ALL_QUEUES,))["type"] == "sweep"


def test_the_example_goes_to_a_queue_that_is_worked_on() -> None:
    registry = Registry()

    assert "queue" not in example_of(registry, simulate=True, queues=("mail", "default"))
    assert "queue" not in example_of(registry, simulate=True, queues=(ALL_QUEUES,))
    assert example_of(registry, simulate=True, queues=("mail", "bills"))["queue"] == "mail"


def test_the_banner_says_what_is_to_be_filled_in() -> None:
    text = banner.compose(
        base_url="http://127.0.0.1:8080",
        mongodb_uri="mongodb://db",
        database="jobs",
        simulate=False,
        example={"id": "first-1", "type": "add", "payload": banner.FILL_IN},
        pages=banner.PAGES,
    )

    assert 'Try it, with what the task takes in place of "<payload>":' in text


def test_the_banner_of_a_process_without_http_offers_no_calls() -> None:
    text = banner.compose(
        base_url=None,
        mongodb_uri="mongodb://db",
        database="jobs",
        simulate=False,
        example=None,
        pages=banner.PAGES_OF_A_WORKER,
    )

    assert "http://" not in text
    assert "curl" not in text
    assert "Simulation" not in text
