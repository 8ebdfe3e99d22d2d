"""The settings: read from the environment, checked at once, every problem reported with the name of its variable."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobqueue.errors import ConfigurationError
from jobqueue.settings import Settings, load_settings

pytestmark = pytest.mark.usefixtures("nothing_is_set")


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load_settings()

    assert (settings.host, settings.port, settings.mongodb_uri) == ("127.0.0.1", None, None)
    assert (settings.database, settings.driver, settings.data_dir) == ("jobqueue", "motor", Path(".jobqueue"))
    assert (settings.workers, settings.queue_size, settings.queues) == (10, 1000, ("*",))
    assert (settings.max_retries, settings.backoff_base_seconds, settings.backoff_max_seconds) == (3, 1, 300)
    assert (settings.lease_seconds, settings.poll_seconds, settings.timeout_seconds) == (30, 1, 1800)
    assert (settings.shutdown_grace_seconds, settings.max_payload_bytes) == (20, 1 << 20)
    assert settings.retention_completed_seconds == 24 * 3600
    assert settings.retention_failed_seconds == 30 * 24 * 3600


def test_all_wrong_settings_are_reported_together_by_the_names_of_their_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = {
        "PORT": "70000",
        "MONGODB_URI": "http://localhost",
        "DATABASE": "two words",
        "DRIVER": "pigeon",
        "WORKERS": "0",
        "QUEUES": "fine,not fine",
        "MAX_RETRIES": "101",
        "LEASE_SECONDS": "soon",
        "RETENTION_FAILED_SECONDS": "1e11",
        "SIMULATE": "perhaps",
        "LOG_LEVEL": "LOUD",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(f"JOBQUEUE_{name}", value)

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    described = [line.partition(":")[0].strip() for line in str(refused.value).splitlines()[1:]]
    assert sorted(described) == sorted(f"JOBQUEUE_{name}" for name in wrong)


def test_a_rule_between_two_settings_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_BACKOFF_BASE_SECONDS", "10")
    monkeypatch.setenv("JOBQUEUE_BACKOFF_MAX_SECONDS", "5")

    with pytest.raises(ConfigurationError, match=r"\n  JOBQUEUE_BACKOFF_MAX_SECONDS: must .* JOBQUEUE_BACKOFF_BASE"):
        load_settings()


def test_rules_between_settings_are_reported_with_everything_else_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOBQUEUE_BACKOFF_BASE_SECONDS", "400")
    monkeypatch.setenv("JOBQUEUE_FAULT", '{"probability": 0.1}')
    monkeypatch.setenv("JOBQUEUE_WORKERS", "0")

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    described = {line.partition(":")[0].strip() for line in str(refused.value).splitlines()[1:]}
    assert described == {"JOBQUEUE_WORKERS", "JOBQUEUE_BACKOFF_MAX_SECONDS", "JOBQUEUE_FAULT"}


@pytest.mark.parametrize("name", ["POLL_SECONDS", "LEASE_SECONDS", "TIMEOUT_SECONDS"])
def test_a_time_that_nobody_can_mean_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"JOBQUEUE_{name}", "1e-9")

    with pytest.raises(ConfigurationError, match=f"JOBQUEUE_{name}: .* greater than or equal to 0"):
        load_settings()


@pytest.mark.parametrize("name", ["local", "admin", "config", "Local"])
def test_the_databases_of_mongodb_itself_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_DATABASE", name)

    with pytest.raises(ConfigurationError, match=f"JOBQUEUE_DATABASE: '{name}' is one of MongoDB's own"):
        load_settings()


def test_what_the_command_line_gives_wins_and_what_it_leaves_out_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_HOST", "0.0.0.0")
    monkeypatch.setenv("JOBQUEUE_PORT", "1000")

    settings = load_settings(host=None, port=2000)

    assert (settings.host, settings.port) == ("0.0.0.0", 2000)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "MONGODB_URI", "QUEUES", "SIMULATE"):
        monkeypatch.setenv(f"JOBQUEUE_{name}", "")

    assert load_settings() == Settings.model_construct()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("JOBQUEUE_MONGO_URI", "did you mean JOBQUEUE_MONGODB_URI?"),
        ("JOBQUEUE_WORKER", "did you mean JOBQUEUE_WORKERS?"),
        ("JOBQUEUE_LEASE", "did you mean JOBQUEUE_LEASE_SECONDS?"),
        ("JOBQUEUE_HTTP_PORT", "did you mean JOBQUEUE_PORT?"),
        ("jobqueue_worker", "did you mean JOBQUEUE_WORKERS?"),  # settings are read in lower case too
        ("JOBQUEUE_SECRET", "`jobqueue --help` lists all"),
    ],
)
def test_a_name_that_no_setting_has_is_reported_with_the_nearest_that_there_is(
    name: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "50")

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert str(refused.value).splitlines()[1:] == [f"  {name}: there is no such setting; {hint}"]


def test_names_and_values_that_are_wrong_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_PROCESS", "2")
    monkeypatch.setenv("JOBQUEUE_WORKERS", "0")

    with pytest.raises(ConfigurationError, match=r"(?s)JOBQUEUE_WORKERS: .*JOBQUEUE_PROCESS: there is no such"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # what Kubernetes sets for Services named jobqueue and jobqueue-api
        ("JOBQUEUE_SERVICE_HOST", "10.0.0.1"),
        ("JOBQUEUE_SERVICE_PORT", "80"),
        ("JOBQUEUE_SERVICE_PORT_HTTP", "80"),
        ("JOBQUEUE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("JOBQUEUE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("JOBQUEUE_PORT_53_UDP_PROTO", "udp"),
        ("JOBQUEUE_API_SERVICE_HOST", "10.0.0.2"),
        ("JOBQUEUE_API_PORT", "tcp://10.0.0.2:80"),
        ("JOBQUEUE_API_PORT_80_TCP_PORT", "80"),
        # what this repository reads elsewhere
        ("JOBQUEUE_TEST_SEED", "7"),
        ("JOBQUEUE_BENCH_ONLY", "saq"),
        # what is not set, or not ours
        ("JOBQUEUE_WORKER", ""),
        ("JOBQUEUES_WORKER", "50"),
    ],
)
def test_what_nobody_misspelled_is_no_reason_not_to_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert load_settings() == Settings.model_construct()


def test_the_port_that_kubernetes_sets_is_explained_and_an_option_wins_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_PORT", "tcp://10.0.0.1:80")

    with pytest.raises(ConfigurationError, match=r"JOBQUEUE_PORT: .* Kubernetes .* enableServiceLinks: false"):
        load_settings()

    assert load_settings(port=8080).port == 8080


def test_queues_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_QUEUES", "mail, reports")

    assert load_settings().queues == ("mail", "reports")


def test_the_password_in_the_uri_is_neither_shown_nor_quoted_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_MONGODB_URI", "mongodb://me:s3cret@db")
    assert "s3cret" not in repr(load_settings())

    monkeypatch.setenv("JOBQUEUE_MONGODB_URI", "mongo://me:s3cret@db")
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("password", ["12/34", "12/34?5=6", "12?3=4", "12#34", "12?/34", "1@2/3", "1@2?3=4"])
def test_a_password_that_a_driver_would_take_for_a_port_is_refused(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBQUEUE_MONGODB_URI", f"mongodb://me:{password}@db/")

    with pytest.raises(ConfigurationError, match=r"JOBQUEUE_MONGODB_URI: .* must be percent-encoded, as %40 for @$"):
        load_settings()


@pytest.mark.parametrize(
    "uri",
    ["mongodb://me:a%40b==@db,db2:1/?ssl=true&appName=@me@", "mongodb+srv://me:a@db/x?appName=@me@", "mongodb://db/x"],
)
def test_the_uris_of_azure_are_taken_as_they_are(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_MONGODB_URI", uri)

    assert load_settings().mongodb_uri is not None


def test_settings_do_not_change() -> None:
    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # that is the point
