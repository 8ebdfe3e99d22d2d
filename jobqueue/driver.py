"""Clients: which driver, with which options. Beside the package `mongo` the only importer of a driver.

Motor is the default, because the project's owner named it; it is at the end of its life, and PyMongo's own
asyncio client is its successor. Everything else is written for the calls that both share.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import structlog
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError

from jobqueue.errors import ConfigurationError
from jobqueue.mongo.calls import calls_in_flight
from jobqueue.mongo.documents import READING
from jobqueue.mongo.leases import MongoLeaseStore
from jobqueue.mongo.store import Client
from jobqueue.settings import ESCAPING, Settings

log = structlog.get_logger(__name__)

APPLICATION = "jobqueue"
SELECTION_MILLISECONDS = 5_000
CONNECT_MILLISECONDS = 5_000
SOCKET_MILLISECONDS = 10_000
"""For the questions of the change stream, which alone have no deadline: each is answered within two seconds."""

PINNED = {
    "w": "majority",
    "journal": "true",
    "wtimeoutms": None,
    "readpreference": "primary",
    "readpreferencetags": None,
    "readconcernlevel": "local",
}
"""Options of a URI that the repository overrides, and to what: otherwise it could not keep its promises."""


def connect(settings: Settings, uri: str) -> Client:
    """The asyncio client of the driver that is set. Connects when it is first used.

    Raises `ConfigurationError` when the URI makes no sense."""
    options: dict[str, Any] = READING | {
        "appname": APPLICATION,
        "serverSelectionTimeoutMS": SELECTION_MILLISECONDS,
        "connectTimeoutMS": CONNECT_MILLISECONDS,
        "socketTimeoutMS": SOCKET_MILLISECONDS,
        "timeoutMS": None,  # it would be what the server holds each of those questions open for
        "maxPoolSize": calls_in_flight() + 1,
    }
    driver = AsyncIOMotorClient if settings.driver == "motor" else AsyncMongoClient
    try:
        client = cast(Client, driver(uri, **options))
        _tell_what_is_overridden(uri)
    except (PyMongoError, ValueError, OSError) as error:
        raise _unusable(uri, error) from None
    return client


def lease_store(settings: Settings, uri: str) -> MongoLeaseStore:
    """What the lease thread uses: a synchronous client of its own, with no more patience than a third of a lease.

    Call it in the thread that is to use it. Raises `ConfigurationError`."""
    patience = max(100, int(settings.lease_seconds / 3 * 1000))
    options: dict[str, Any] = READING | {
        "appname": f"{APPLICATION}-leases",
        "timeoutMS": patience,
        "serverSelectionTimeoutMS": patience,
        "connectTimeoutMS": patience,
        "maxPoolSize": 1,
    }
    try:
        return MongoLeaseStore(MongoClient(uri, **options), settings.database)
    except (PyMongoError, ValueError, OSError) as error:
        raise _unusable(uri, error) from None


def _tell_what_is_overridden(uri: str) -> None:
    options = parse_qsl(urlsplit(uri).query)
    overridden = [name for name, value in options if PINNED.get(name.lower(), value) != value]
    if overridden:
        log.info("options of the MongoDB URI are overridden", options=overridden)


def _unusable(uri: str, error: Exception) -> ConfigurationError:
    # The driver's sentence may quote the URI, and with it a password.
    kind = type(error).__name__
    if isinstance(error, OSError):
        return ConfigurationError(f"a file that JOBQUEUE_MONGODB_URI names cannot be used ({kind})")
    hint = f"; {ESCAPING}" if "@" in uri else ""
    return ConfigurationError(f"JOBQUEUE_MONGODB_URI is no usable MongoDB URI ({kind}){hint}")
