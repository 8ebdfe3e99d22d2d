"""aiohttp's own log, without an error and a traceback for everybody who sends something that is no HTTP.

Port scanners, health checks of the wrong kind and TLS on the plain port are everyday life; each is one line of
information. Clients that go away are none. Everything else that aiohttp logs stays as it is.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError


class OneLineForNoise(logging.Filter):
    """Turns records about unreadable requests into one line each, and drops those about clients that are gone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ConnectionError):
            return False  # whoever was to be answered is gone
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.msg, record.args = "unreadable request: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
        return True


server_log = logging.getLogger("jobqueue.http")
server_log.addFilter(OneLineForNoise())
