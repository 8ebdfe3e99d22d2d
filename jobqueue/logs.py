"""Logging: events with fields, one line each, on standard error.

JSON unless a person watches; the standard library's loggers (aiohttp, pymongo, motor, asyncio, warnings) pass the same
processors. No line ever contains the credentials of a MongoDB URI, be it in a field or deep in a traceback. A line that
cannot be written, because the disk is full or nobody reads any more, is lost, and nothing else is.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

LogFormat = Literal["auto", "json", "console"]

_CREDENTIALS = re.compile(r"(mongodb(?:\+srv)?://)(?:(?!mongodb(?:\+srv)?://)[^\r\n])*@")
"""To the last @ of the line, or before the next URI: drivers take passwords with quotes and spaces in them."""
_SECRET_OPTIONS = re.compile(
    r"""((?:tlsCertificateKeyFilePassword|authMechanismProperties)=)[^&\s"']*""", re.IGNORECASE
)
_CHATTY = ("pymongo", "motor", "asyncio", "aiohttp.access")
"""Libraries that at DEBUG or INFO tell of every command, with its documents."""


def configure(
    level: str, log_format: LogFormat = "auto", *, stream: TextIO | None = None, process: int | None = None
) -> None:
    """Set up logging for this process; may be called again. Every line says which `process` of several this is."""
    stream = cast(TextIO, _LossyStream(stream or sys.stderr))
    render = _renderer(log_format, colors=stream.isatty())
    processors = _PROCESSORS if process is None else (*_PROCESSORS, _numbered(process))
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(level, processors, render, stream)


class _LossyStream:
    """As much of a stream as loggers use. It never fails: work must go on when its log cannot, and much is logged in
    the very `except` that keeps some loop alive."""

    def __init__(self, stream: TextIO | None) -> None:
        """Python has no standard error where it was closed before the start."""
        self._stream = stream

    def write(self, text: str) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):  # a closed file is a ValueError
                self._stream.write(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False


def mask_credentials(text: str) -> str:
    """The text with user name, password and secret options of every MongoDB URI in it replaced by stars."""
    return _SECRET_OPTIONS.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def _route_standard_library(level: str, before: Sequence[Processor], render: Processor, stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _renderer(log_format: LogFormat, *, colors: bool) -> Processor:
    if log_format == "json" or (log_format == "auto" and not colors):
        return structlog.processors.JSONRenderer(sort_keys=False)
    return structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )


def _put_first_what_is_read_first(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event"), **event}


def _numbered(process: int) -> Processor:
    def number(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return number


def _mask(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: _masked(value) for key, value in event.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_credentials(value) if "://" in value else value
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if isinstance(value, BaseException):
        return mask_credentials(str(value))
    return value


_PROCESSORS: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    _put_first_what_is_read_first,
    _mask,
)
