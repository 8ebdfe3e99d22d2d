"""Everything that can be set, from `JOBQUEUE_...` environment variables; checked once, at the start.

Every problem is reported together, with the name of the variable, before anything is started; a variable of our prefix
that is no setting is one of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobqueue.errors import ConfigurationError
from jobqueue.job import DEFAULT_MAX_RETRIES, MAX_RETRIES_RANGE, MAX_TIMEOUT_SECONDS, NAME_PATTERN, Fault

PREFIX = "JOBQUEUE_"
ALL_QUEUES = "*"
DAY_SECONDS = 86_400
MAX_RETENTION_SECONDS = 100 * 365 * DAY_SECONDS
LEAST_SECONDS = 0.01
"""With a shorter time a worker would look without a pause, or end every attempt as it begins."""

_DATABASES_OF_MONGODB = ("admin", "config", "local")
"""`local` is never replicated, so no majority could have a job there; the others are the server's own."""

ESCAPING = "in its user name and password each of : / ? # [ ] @ % must be percent-encoded, as %40 for @"
_MISPLACED_AT_SIGN = re.compile(r"mongodb(\+srv)?://([^@/?#]*[/?#].*|[^/?#]*(/[^?]*|[?#].*))@")
"""After what a driver takes for the hosts. Only options may have one, as those of Azure do, where there is a user."""

_OF_TESTS_AND_BENCHMARKS = (f"{PREFIX}TEST_", f"{PREFIX}BENCH_")
"""Variables that this repository reads elsewhere."""
_LINK = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_LINKED_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
"""What Kubernetes puts into every pod for a Service named `jobqueue`, or `jobqueue-api`: nobody misspelled that."""


class Settings(BaseSettings):
    """The settings of one process. Immutable; all durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", validate_default=True
    )

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port to listen on, 0 takes a free one; without it 8080, and a worker does not listen",
    )
    mongodb_uri: SecretStr | None = Field(
        None, description="where MongoDB is, mongodb://...; without it the embedded server is used"
    )
    database: str = Field("jobqueue", pattern=r"^[A-Za-z0-9_-]{1,63}$", description="name of the database")
    driver: Literal["motor", "pymongo"] = Field("motor", description="which asyncio driver to use")
    data_dir: Path = Field(Path(".jobqueue"), description="where the embedded server keeps its data")
    embedded_server: Literal["auto", "python", "rust"] = Field("auto", description="which build of it to use")

    processes: int = Field(1, ge=1, le=256, description="processes of `serve`, `api` or `worker`, all on one port")
    workers: int = Field(10, ge=1, le=10_000, description="jobs run at the same time in each process")
    queue_size: int = Field(
        1_000, ge=1, le=100_000, description="ids held ready in memory, at least as many as WORKERS"
    )
    queues: Annotated[tuple[str, ...], NoDecode] = Field(
        (ALL_QUEUES,), description="queues to work on, separated by commas; * is every one"
    )
    claim: Literal["auto", "single", "batch"] = Field(
        "auto", description="how jobs are claimed: one by one or many at a time"
    )
    poll_seconds: float = Field(1.0, ge=LEAST_SECONDS, le=3600, description="how often to look for work when idle")
    lease_seconds: float = Field(
        30.0, ge=0.5, le=3600, description="how long a worker may be silent before its jobs are given to others"
    )

    max_retries: int = Field(
        DEFAULT_MAX_RETRIES,
        ge=MAX_RETRIES_RANGE[0],
        le=MAX_RETRIES_RANGE[-1],
        description="attempts a job may have",
    )
    backoff_base_seconds: float = Field(1.0, ge=0, le=DAY_SECONDS, description="delay after the first failure")
    backoff_max_seconds: float = Field(300.0, ge=0, le=30 * DAY_SECONDS, description="longest delay")
    timeout_seconds: float = Field(1800.0, ge=LEAST_SECONDS, le=MAX_TIMEOUT_SECONDS, description="longest attempt")
    shutdown_grace_seconds: float = Field(20.0, ge=0, le=3600, description="time for running jobs at shutdown")

    max_payload_bytes: int = Field(1 << 20, ge=1, le=8 << 20, description="largest body of one job")
    max_bulk_bytes: int = Field(16 << 20, ge=1, le=64 << 20, description="largest body of a bulk request")
    max_pending: int = Field(
        100_000, ge=1, le=100_000_000, description="jobs that may wait, due or not; more are refused with 503"
    )
    max_pending_per_queue: int | None = Field(
        None, ge=1, le=100_000_000, description="the same for each queue; without it only the total is limited"
    )
    rate_limit: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="jobs accepted a second by all processes together, set alike in each; more are refused with 429",
    )
    retention_completed_seconds: float = Field(
        float(DAY_SECONDS),
        ge=0,
        le=MAX_RETENTION_SECONDS,
        description="how long completed and cancelled jobs are kept; then they go within 30 seconds",
    )
    retention_failed_seconds: float = Field(
        float(30 * DAY_SECONDS), ge=0, le=MAX_RETENTION_SECONDS, description="the same for failed jobs"
    )

    simulate: bool | None = Field(
        None,
        description="let jobs of types without a task sleep briefly and complete; without it only `serve` does,"
        " on the embedded server and without --tasks",
    )
    faults: bool = Field(False, description="let jobs fail on purpose, as their `fault` says; for tests only")
    fault: Fault | None = Field(
        None, description='with FAULTS: how jobs without a fault of their own fail, such as {"probability": 0.1}'
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level to log")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: JSON unless on a terminal")

    @field_validator("port", mode="before")
    @classmethod
    def _check_port(cls, value: Any) -> Any:
        if isinstance(value, str) and _LINKED_ADDRESS.match(value):
            raise ValueError(
                f"{value} is what Kubernetes sets for a Service named jobqueue: set enableServiceLinks: false in the"
                " pod, or give it a port there, or name the Service otherwise"
            )
        return value

    @field_validator("queues", mode="before")
    @classmethod
    def _split_queues(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    @field_validator("queues")
    @classmethod
    def _check_queues(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names == (ALL_QUEUES,):
            return names
        for name in names:
            if not NAME_PATTERN.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a queue (letters, digits, . _ : -; up to 128)")
        return names

    @field_validator("database")
    @classmethod
    def _check_database(cls, name: str) -> str:
        if name.lower() in _DATABASES_OF_MONGODB:
            raise ValueError(f"{name!r} is one of MongoDB's own ({', '.join(_DATABASES_OF_MONGODB)})")
        return name

    @field_validator("mongodb_uri")
    @classmethod
    def _check_uri(cls, uri: SecretStr | None) -> SecretStr | None:
        if uri is None:
            return uri
        if not uri.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        # A driver would take a part of the password for a host or a port, which messages may name.
        if _MISPLACED_AT_SIGN.match(uri.get_secret_value()):
            raise ValueError(ESCAPING)
        return uri

    @field_validator("backoff_max_seconds")
    @classmethod
    def _check_backoff(cls, longest: float, info: ValidationInfo) -> float:
        if longest < info.data.get("backoff_base_seconds", 0):
            raise ValueError(f"must not be less than {PREFIX}BACKOFF_BASE_SECONDS")
        return longest

    @field_validator("fault", mode="before")
    @classmethod
    def _check_fault_is_an_object(cls, value: Any) -> Any:
        # As text it comes when it is no JSON.
        if value is not None and not isinstance(value, dict | Fault):
            raise ValueError('must be a JSON object, such as {"probability": 0.1}')
        return value

    @field_validator("fault")
    @classmethod
    def _check_fault(cls, fault: Fault | None, info: ValidationInfo) -> Fault | None:
        if fault is not None and info.data.get("faults") is False:
            raise ValueError(f"needs {PREFIX}FAULTS=true")
        return fault


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` (from the command line) win where they are not None.

    Raises `ConfigurationError` that names every wrong setting, and every variable that looks like one and is none."""
    given: Mapping[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    unknown = list(_unknown(os.environ))
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise _refusal([*_described(error), *unknown]) from None
    if unknown:
        raise _refusal(unknown)
    return settings


def _refusal(problems: Sequence[str]) -> ConfigurationError:
    return ConfigurationError("\n".join(["these settings are wrong:", *(f"  {problem}" for problem in problems)]))


def _described(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        name, *keys = problem["loc"]
        yield ": ".join([f"{PREFIX}{str(name).upper()}", *map(str, keys), problem["msg"].removeprefix("Value error, ")])


def _unknown(environment: Mapping[str, str]) -> Iterator[str]:
    """Ignored, a misspelled name would start another service than the one that was wanted."""
    settings = [field.upper() for field in Settings.model_fields]
    for variable, value in environment.items():
        name = variable.upper()  # as the settings are read
        wanted = name.removeprefix(PREFIX)
        if not value or wanted == name or wanted in settings or _is_for_others(name, value):
            continue
        nearest = get_close_matches(wanted, settings, n=1, cutoff=0.5)
        hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "`jobqueue --help` lists all"
        yield f"{variable}: there is no such setting; {hint}"


def _is_for_others(name: str, value: str) -> bool:
    if name.startswith(_OF_TESTS_AND_BENCHMARKS) or _LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and _LINKED_ADDRESS.match(value) is not None
