"""What a worker does for each job, beside the job: bounded, so that nobody adds to it unawares.

Counted are the calls of Python functions, ours and those of others, since what they take would differ from machine to
machine. Whoever has good reasons for more of them sets the bound anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
import structlog
from wired_pool import Wire, waiting, wired_pool

from jobqueue.job import JsonValue
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.tasks import Registry

JOBS = 1_000

NOT_ALWAYS_CALLS = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>"})
"""From Python 3.12 on these are part of the function around them."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lines at INFO are not shown, and so must cost nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("result", "most"),
    [
        (None, 90),  # 86.5 when this was written; 84 to 86 on later Pythons
        ({"n": 1}, 97),  # 93.5
    ],
    ids=["nothing", "a result"],
)
async def test_running_a_job_takes_a_bounded_number_of_calls(result: JsonValue, most: int) -> None:
    registry = Registry()

    @registry.task("noop")
    async def noop() -> JsonValue:
        return result

    metrics = PrometheusMetrics(types=["noop"])
    wire = Wire(waiting(JOBS), metrics)
    pool = wired_pool(wire, registry, metrics)

    with _counted() as calls:
        poller = asyncio.create_task(pool.poller.run())
        await asyncio.wait_for(wire.all_completed.wait(), 60)
    poller.cancel()
    await pool.stop(grace_seconds=10, flush_seconds=10)

    assert not pool.running
    assert len(calls) / JOBS <= most


@contextmanager
def _counted() -> Iterator[list[str]]:
    calls: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name not in NOT_ALWAYS_CALLS:
            calls.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)
