"""The log: one line per event, for machines or people, and never a password in it."""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
import structlog

from jobqueue import logs

URI = "mongodb://me:s3cr3t@db.example.org:27017/?w=1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_time_and_fields() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream)

    structlog.get_logger().info("job finished", job_id="7", seconds=0.5)

    (line,) = _lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "job finished", "level": "info", "job_id": "7", "seconds": 0.5}


def test_loggers_of_the_standard_library_write_the_same_lines() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream)

    logging.getLogger("aiohttp.server").error("cannot %s", "go on")

    (line,) = _lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("cannot go on", "error", "aiohttp.server")


def test_of_several_processes_every_line_says_which_one_wrote_it() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream, process=2)

    structlog.get_logger().info("started")
    logging.getLogger("pymongo").warning("away")

    assert [(line["event"], line["process"]) for line in _lines(stream)] == [("started", 2), ("away", 2)]


def test_events_below_the_level_and_the_chatter_of_drivers_are_left_out() -> None:
    stream = io.StringIO()
    logs.configure("WARNING", stream=stream)
    structlog.get_logger().info("small")
    logging.getLogger("any").info("small")

    logs.configure("DEBUG", stream=stream)
    logging.getLogger("pymongo.command").debug("every command, with its documents")

    assert stream.getvalue() == ""


def test_an_exception_is_in_its_line_with_the_traceback_and_without_local_variables() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream)
    payload = {"card": "4111"}

    try:
        raise ValueError(f"{len(payload)} wrong")
    except ValueError:
        structlog.get_logger().exception("task failed")

    (line,) = _lines(stream)
    assert "ValueError: 1 wrong" in line["exception"]
    assert "4111" not in line["exception"]


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Unread(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError

    def isatty(self) -> bool:
        raise OSError(errno.EIO, "the terminal is gone")


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Full(), Unread(), _closed()], ids=["full", "unread", "closed"])
def test_a_line_that_cannot_be_written_is_lost_and_costs_nobody_anything(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("INFO", stream=stream)
    monkeypatch.setattr(sys, "stderr", stream)  # where the standard library complains

    structlog.get_logger().warning("lost")
    logging.getLogger("aiohttp.server").error("lost")


def test_without_a_standard_error_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("INFO")

    structlog.get_logger().warning("lost")
    logging.getLogger("aiohttp.server").error("lost")


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


def _holding_itself() -> dict[str, Any]:
    value: dict[str, Any] = {"uri": URI}
    value["self"] = [value]
    return value


class Unwritable(Exception):
    """No traceback of it can be written out."""

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # an attribute cannot raise
        raise ValueError("no")


ODD: dict[str, Any] = {
    "keyed by tuples": {(1, 2): 3},
    "keyed by UUIDs": {UUID(int=7): 3},
    "keyed by dates": {date(2026, 2, 2): 3},
    "keyed by the unshowable": {Broken(): 3},
    "holding itself": _holding_itself(),
    "an unshowable error": Broken(),
    "unshowable within": [{"deep": (type("Odd", (), {"__repr__": Broken.__str__})(),)}],
    "more digits than Python writes": 10**5_000,
}


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_shown_is_in_the_line_as_text(kind: str, log_format: logs.LogFormat) -> None:
    stream = io.StringIO()
    logs.configure("INFO", log_format, stream=stream)

    structlog.get_logger().info("odd", value=ODD[kind], n=1)
    structlog.get_logger().info(ODD[kind], n=2)

    odd, as_event = stream.getvalue().splitlines()
    assert "s3cr3t" not in stream.getvalue()
    assert "odd" in odd
    if log_format == "json":
        assert (json.loads(odd)["n"], json.loads(as_event)["n"]) == (1, 2)


def test_keys_that_json_does_not_know_are_text_and_masked() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream)

    structlog.get_logger().info("counted", counts={(1, 2): 3, 4: 5, URI: 6})

    assert _lines(stream)[0]["counts"] == {"(1, 2)": 3, "4": 5, "mongodb://***@db.example.org:27017/?w=1": 6}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_that_cannot_be_written_out_leaves_the_name_of_its_error(log_format: logs.LogFormat) -> None:
    stream = io.StringIO()
    logs.configure("INFO", log_format, stream=stream)

    structlog.get_logger().error("broke", exc_info=Unwritable("boom"))
    logging.getLogger("any").error("broke", exc_info=Unwritable("boom"))

    assert stream.getvalue().count("Unwritable: boom") == 2


async def test_a_call_with_arguments_that_do_not_fit_is_a_line_all_the_same() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream)
    log = structlog.get_logger()

    log.info("%d done", "all")
    log.info("request", method_name="GET")
    log.log(25, "of no known level")
    log.info(None)
    await log.ainfo("%d done", "later")
    logging.getLogger("any").warning("%d done", "all")

    assert [(line["event"], line.get("fields") or {}) for line in _lines(stream)] == [
        ("%d done all", {}),
        ("request", {"method_name": "GET"}),
        ("25 of no known level", {}),
        ("", {}),
        ("%d done later", {}),
        ("%d done ('all',)", {}),
    ]


def test_a_stack_ends_where_the_line_was_logged() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream=stream)

    structlog.get_logger().info("here", stack_info=True)

    assert _lines(stream)[0]["stack"].splitlines()[-1].strip().startswith("structlog.get_logger().info(")


def _in_a_field(log: Any) -> None:
    log.info("connecting", uri=URI)


def _in_the_event(log: Any) -> None:
    log.info(f"connecting to {URI}")


def _deep_in_a_field(log: Any) -> None:
    log.info("connecting", options={"hosts": [("primary", URI)]})


def _in_an_error_as_a_field(log: Any) -> None:
    log.info("connecting", error=OSError(URI))


def _in_a_traceback(log: Any) -> None:
    try:
        raise OSError(f"no answer from {URI}")
    except OSError:
        log.exception("connecting")


def _by_the_standard_library(_log: Any) -> None:
    logging.getLogger("motor.x").warning("no answer from %s", URI)


def _in_a_warning(_log: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"{URI} is odd", stacklevel=1)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "tell",
    [
        _in_a_field,
        _in_the_event,
        _deep_in_a_field,
        _in_an_error_as_a_field,
        _in_a_traceback,
        _by_the_standard_library,
        _in_a_warning,
    ],
)
def test_credentials_never_reach_the_log(tell: Callable[[Any], None], log_format: logs.LogFormat) -> None:
    stream = io.StringIO()
    logs.configure("INFO", log_format, stream=stream)

    tell(structlog.get_logger())

    assert "s3cr3t" not in stream.getvalue()
    assert "mongodb://***@db.example.org" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mongodb://127.0.0.1:27027/?journal=true", "mongodb://127.0.0.1:27027/?journal=true"),
        ("mongodb+srv://u:p@x.net", "mongodb+srv://***@x.net"),
        ("mongodb://u:p@a,b:1/?x=1 and mongodb://v:q@c", "mongodb://***@a,b:1/?x=1 and mongodb://***@c"),
        ("mongodb://u:p@ss/w@rd@host", "mongodb://***@host"),  # not escaped as it should be, and a password still
        ("mongodb://u:it's@host/db", "mongodb://***@host/db"),
        ('mongodb://u:"quoted" word@host', "mongodb://***@host"),  # PyMongo takes these three as they are
        ("mongodb://h/?TLSCertificateKeyFilePassword=x&w=1", "mongodb://h/?TLSCertificateKeyFilePassword=***&w=1"),
        ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:x", "mongodb://h/?authMechanismProperties=***"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_user_name_password_and_secret_options_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert logs.mask_credentials(text) == masked


def test_the_log_is_for_people_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        logs.configure("INFO", stream=stream)
        structlog.get_logger().info("started", url="u")

    assert _lines(pipe)[0]["url"] == "u"
    with pytest.raises(json.JSONDecodeError):
        _lines(terminal)
