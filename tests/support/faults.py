"""A client whose calls fail as told: before they are sent, or after they were carried out (a lost answer)."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from pymongo.errors import AutoReconnect, BulkWriteError, PyMongoError

WRITES = frozenset(
    {
        "insert_one",
        "insert_many",
        "update_one",
        "update_many",
        "bulk_write",
        "find_one_and_update",
        "delete_one",
        "delete_many",
        "create_indexes",
    }
)
LOST = AutoReconnect("the answer was lost (injected)")
NO_MAJORITY = BulkWriteError(
    {"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "waiting for replication timed out"}]}
)

GIVES_UP_SOON = pytest.mark.parametrize("client_seconds", [2.0], ids=["gives up soon"])
"""For tests in which no write succeeds, however often it is tried."""


class Fault(NamedTuple):
    """How one call is to fail, and whether it is carried out before that."""

    error: Exception
    carried_out: bool


class Faults:
    """The faults to come. `meanwhile` runs just before the next call of a method reaches the server."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._meanwhile: dict[str, Callable[[], Any]] = {}

    def lose_answer(self, method: str, *, times: int = 1, error: Exception = LOST) -> None:
        """The next calls of this method happen, but their answers do not arrive."""
        self._faults[method].extend([Fault(error, carried_out=True)] * times)

    def fail(self, method: str, *, times: int = 1, error: Exception = LOST) -> None:
        """The next calls of this method do not happen."""
        self._faults[method].extend([Fault(error, carried_out=False)] * times)

    def clear(self) -> None:
        """The network is well again."""
        self._faults.clear()

    def meanwhile(self, method: str, action: Callable[[], Any]) -> None:
        """Run this once, between what the repository has read and its next write by this method."""
        self._meanwhile[method] = action

    async def around(self, method: str, call: Callable[[], Any]) -> Any:
        self.calls.append(method)
        action = self._meanwhile.pop(method, None)
        if action is not None:
            await action()
        fault = self._faults[method].popleft() if self._faults[method] else None
        if fault is not None and not fault.carried_out:
            raise fault.error
        if fault is None:
            return await call()
        with contextlib.suppress(PyMongoError):
            await call()
        raise fault.error


class FaultyClient:
    """Stands in front of any client; everything but writes goes straight through."""

    def __init__(self, client: Any, faults: Faults) -> None:
        self._client = client
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __getitem__(self, name: str) -> Any:
        return _FaultyDatabase(self._client[name], self._faults)


class _FaultyDatabase:
    def __init__(self, database: Any, faults: Faults) -> None:
        self._database = database
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def get_collection(self, name: str, **options: Any) -> Any:
        return _FaultyCollection(self._database.get_collection(name, **options), self._faults)


class _FaultyCollection:
    def __init__(self, collection: Any, faults: Faults) -> None:
        self._collection = collection
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._collection, name)
        if name not in WRITES:
            return target
        # A method of another collection than `jobs` is named with it: `signals.delete_one`.
        method = name if self._collection.name == "jobs" else f"{self._collection.name}.{name}"

        async def call(*args: Any, **options: Any) -> Any:
            return await self._faults.around(method, lambda: target(*args, **options))

        return call
