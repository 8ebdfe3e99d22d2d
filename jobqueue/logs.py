"""Logging: events with fields, one line each, on standard error.

JSON unless a person watches; the standard library's loggers (aiohttp, pymongo, motor, asyncio, warnings) pass the same
processors. No line ever contains the credentials of a MongoDB URI, be it in a field or deep in a traceback. A line that
cannot be written, because the disk is full or nobody reads any more, is lost, and nothing else is; where somebody could
but does not read, the process waits. No call of a logger fails: what cannot be put into a line is in it as text.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

LogFormat = Literal["auto", "json", "console"]

_CREDENTIALS = re.compile(r"(mongodb(?:\+srv)?://)(?:(?!mongodb(?:\+srv)?://)[^\r\n])*@")
"""To the last @ of the line, or before the next URI: drivers take passwords with quotes and spaces in them."""
_SECRET_OPTIONS = re.compile(
    r"""((?:tlsCertificateKeyFilePassword|authMechanismProperties)=)[^&\s"']*""", re.IGNORECASE
)
_CHATTY = ("pymongo", "motor", "asyncio", "aiohttp.access")
"""Libraries that at DEBUG or INFO tell of every command, with its documents."""
_CALLS = ("debug", "info", "msg", "warn", "warning", "error", "exception", "critical", "fatal", "log")


def configure(
    level: str, log_format: LogFormat = "auto", *, stream: TextIO | None = None, process: int | None = None
) -> None:
    """Set up logging for this process; may be called again. Every line says which `process` of several this is."""
    stream = cast(TextIO, _LossyStream(stream or sys.stderr))
    render = _falling_back_to_text(_renderer(log_format, colors=stream.isatty()))
    processors = _PROCESSORS if process is None else (*_PROCESSORS, _numbered(process))
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(level, processors, render, stream)


def bound_logger(level: int) -> type[FilteringBoundLogger]:
    """The class of loggers of this level and above, whose calls never fail, not even with arguments that do not fit
    their message: logging must not cost a task its attempt."""
    base: Any = structlog.make_filtering_bound_logger(level)
    calls: dict[str, Callable[..., Any]] = {}
    for name in _CALLS:
        plainly = getattr(base, "info" if name == "log" else name)
        calls[name] = _never_failing(getattr(base, name), plainly)
        calls[f"a{name}"] = _never_failing_async(getattr(base, f"a{name}"), plainly)
    return cast(type[FilteringBoundLogger], type(base.__name__, (base,), calls))


def text_of(value: object) -> str:
    """The value as text, whatever it is."""
    try:
        return str(value)
    except Exception:  # __str__ is user code, and a broken one must not cost the line
        return f"({type(value).__name__} that cannot be shown)"


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
        _Formatter(
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


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Does not fail when the arguments of a record do not fit its message."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception:
            message = f"{text_of(record.msg)} {text_of(record.args)}"
            return super().format(logging.makeLogRecord({**record.__dict__, "msg": message, "args": None}))


def _never_failing(call: Callable[..., Any], plainly: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def tell(self: Any, /, *arguments: Any, **fields: Any) -> Any:
        try:
            return call(self, *arguments, **fields)
        except Exception:
            _tell_plainly(self, plainly, arguments, fields)

    return tell


def _never_failing_async(call: Callable[..., Any], plainly: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    async def tell(self: Any, /, *arguments: Any, **fields: Any) -> Any:
        try:
            return await call(self, *arguments, **fields)
        except Exception:
            _tell_plainly(self, plainly, arguments, fields)

    return tell


def _tell_plainly(
    logger: Any, plainly: Callable[..., Any], arguments: Sequence[Any], fields: Mapping[str, Any]
) -> None:
    with suppress(Exception):
        plainly(logger, " ".join(map(text_of, arguments)), fields=fields)


def _falling_back_to_text(render: Processor) -> Processor:
    def rendered(logger: Any, method: str, event: EventDict) -> Any:
        try:
            return render(logger, method, {**event})  # a copy, since the console's takes out what it has rendered
        except Exception:
            return render(logger, method, {key: presentable(logger, method, key, event[key]) for key in event})

    def presentable(logger: Any, method: str, key: str, value: Any) -> Any:
        try:
            render(logger, method, {"event": "", key: value})
        except Exception:
            return mask_credentials(text_of(value))
        return value

    return rendered


def _renderer(log_format: LogFormat, *, colors: bool) -> Processor:
    if log_format == "json" or (log_format == "auto" and not colors):
        return structlog.processors.JSONRenderer(sort_keys=False)
    return structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )


def _put_first_what_is_read_first(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event", ""), **event}


def _numbered(process: int) -> Processor:
    def number(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return number


def _mask(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: _masked_or_text(value) for key, value in event.items()}


def _masked_or_text(value: Any) -> Any:
    try:
        return _masked(value)
    except Exception:  # it contains itself, say
        return mask_credentials(text_of(value))


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, dict):
        return {_masked_key(key): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if isinstance(value, BaseException):
        return mask_credentials(text_of(value))
    return value


def _masked_key(key: Any) -> Any:
    """JSON has no keys but these, and writes all but text as text."""
    return key if key is None or isinstance(key, bool | int | float) else _masked_text(text_of(key))


def _masked_text(text: str) -> str:
    return mask_credentials(text) if "://" in text else text


def _write_out_exception(logger: Any, method: str, event: EventDict) -> EventDict:
    given = event.get("exc_info")
    error = given[1] if isinstance(given, tuple) else given if isinstance(given, BaseException) else sys.exc_info()[1]
    try:
        return structlog.processors.format_exc_info(logger, method, event)
    except Exception:  # its causes or groups go deeper than the stack
        return {**event, "exception": f"{type(error).__name__}: {text_of(error)}"}


_PROCESSORS: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    structlog.processors.StackInfoRenderer(additional_ignores=[__name__]),
    _write_out_exception,
    _put_first_what_is_read_first,
    _mask,
)
