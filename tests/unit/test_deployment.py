"""The container files name only settings that exist, and ports that fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobqueue.api.graphql.sockets import CLOSE_SECONDS
from jobqueue.app import FLUSH_SECONDS
from jobqueue.child import CLOSING_SECONDS
from jobqueue.process import ANSWER_SECONDS
from jobqueue.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]
VARIABLES = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(compose["services"])


@pytest.mark.parametrize("name", ["api", "worker"])
def test_every_variable_of_the_compose_file_is_a_setting_with_a_right_value(
    name: str, services: dict[str, dict[str, Any]]
) -> None:
    environment = services[name]["environment"]

    assert set(environment) <= VARIABLES
    Settings.model_validate({key.removeprefix(PREFIX).lower(): value for key, value in environment.items()})


def test_a_container_may_take_longer_to_stop_than_its_running_jobs_may(services: dict[str, dict[str, Any]]) -> None:
    grace = Settings.model_fields["shutdown_grace_seconds"].default

    for name in ("api", "worker"):
        given = int(services[name]["stop_grace_period"].removesuffix("s"))
        assert given > grace + FLUSH_SECONDS + CLOSING_SECONDS


def test_connections_are_closed_within_the_time_that_a_process_has_for_closing() -> None:
    assert CLOSE_SECONDS + 2 * ANSWER_SECONDS < CLOSING_SECONDS


def test_services_wait_for_a_replica_set_that_has_a_primary(services: dict[str, dict[str, Any]]) -> None:
    (name,) = re.findall(r"--replSet (\S+)", " ".join(services["mongodb"]["command"]))

    assert f"replicaSet={name}" in services["api"]["environment"]["JOBQUEUE_MONGODB_URI"]
    assert "isWritablePrimary" in " ".join(services["mongodb"]["healthcheck"]["test"])
    for service in ("api", "worker"):
        assert services[service]["depends_on"] == {"mongodb": {"condition": "service_healthy"}}


def test_simulation_is_switched_on_openly_and_only_where_jobs_run(services: dict[str, dict[str, Any]]) -> None:
    assert services["worker"]["environment"]["JOBQUEUE_SIMULATE"] == "true"
    assert "JOBQUEUE_SIMULATE" not in services["api"]["environment"]


def test_every_variable_of_the_dockerfile_is_a_setting_and_its_port_is_the_published_one(
    services: dict[str, dict[str, Any]],
) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert set(re.findall(rf"{PREFIX}\w+", dockerfile)) <= VARIABLES
    (port,) = re.findall(rf"{PREFIX}PORT=(\d+)", dockerfile)
    assert f"EXPOSE {port}\n" in dockerfile
    assert services["api"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_every_variable_that_the_repository_names_is_known_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / ".ci").iterdir(), *(ROOT / "docs").glob("*.md")]
    files += [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tests" / "support").rglob("*.py")]
    named = {name for path in files for name in re.findall(rf"{PREFIX}\w*[A-Z]\b", path.read_text(encoding="utf-8"))}
    for name in named - VARIABLES:
        monkeypatch.setenv(name, "something")

    load_settings()

    assert {"JOBQUEUE_BENCH_ONLY", "JOBQUEUE_TEST_WITNESS"} <= named
