"""The logger of one attempt: its lines go to the process's log, and to whoever keeps them with the job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from jobqueue.logs import bound_logger

LOGGER_NAME = "jobqueue.task"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LEVELS["critical"] = logging.CRITICAL
KEPT_LEVEL = logging.INFO
"""Kept with the job from INFO on, and whatever the process itself logs."""

NO_FIELDS = frozenset({"event", "level", "time", "timestamp", "job_id", "type", "attempt"})
"""What a line says elsewhere, or the job does."""

Keep = Callable[[str, object, Mapping[str, Any]], None]
"""Takes the level, the message and the fields of a line, in any thread."""


def task_logger(keep: Keep) -> FilteringBoundLogger:
    """A logger like any other of this process, whose lines are kept as well, also those below its level."""
    of_process: FilteringBoundLogger = structlog.get_logger(LOGGER_NAME)
    config = structlog.get_config()
    *prepare, render = config["processors"]

    def take(_logger: Any, method: str, event: EventDict) -> EventDict:
        shown = of_process.is_enabled_for(LEVELS[method])
        if shown or LEVELS[method] >= KEPT_LEVEL:
            keep(method, event.get("event", ""), {name: event[name] for name in event if name not in NO_FIELDS})
        if not shown:
            raise structlog.DropEvent
        return event

    logger: FilteringBoundLogger = structlog.wrap_logger(
        None, processors=[*prepare, take, render], wrapper_class=_ALL_LEVELS
    )
    return logger


_ALL_LEVELS = bound_logger(0)
