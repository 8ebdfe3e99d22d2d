"""What the errors of writes mean: never "it did not happen" where it may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

from jobqueue.mongo.calls import may_have_happened

RETRYABLE: Mapping[str, Any] = {"errorLabels": ["RetryableWriteError"]}


@pytest.mark.parametrize(
    ("error", "doubtful"),
    [
        (AutoReconnect("connection closed"), True),
        (NetworkTimeout("timed out"), True),
        (NotPrimaryError("not primary"), True),
        (WTimeoutError("waiting for replication timed out", 64), True),
        (WriteConcernError("operation was interrupted", 11602), True),
        (WriteConcernError("not enough data-bearing nodes", 100), True),
        (OperationFailure("operation exceeded time limit", 50), True),
        (OperationFailure("primary stepped down", 189), True),
        (OperationFailure("of another kind", 10000, RETRYABLE), True),
        (ServerSelectionTimeoutError("no primary"), False),
        (WaitQueueTimeoutError("too many calls"), False),
        (WriteError("Document failed validation", 121), False),
        (OperationFailure("not authorized", 13), False),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "code", "")) if isinstance(value, Exception) else value,
)
def test_a_write_whose_fate_is_not_known_is_doubtful(error: PyMongoError, doubtful: bool) -> None:
    assert may_have_happened(error) is doubtful
