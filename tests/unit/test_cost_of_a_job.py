"""What a worker does for each job, beside the job: bounded, so that nobody adds to it unawares.

Counted are calls, of functions in Python and in C, since what they take would differ from machine to machine: all, with
a tenth to spare for other releases of the libraries, and those that this project's code makes or answers, with none to
spare for one call more. Whoever has good reasons for more of them sets the bounds anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
import structlog
from counted_calls import telling_of_calls
from wired_pool import Wire, end, waiting, wired_pool

import jobqueue
from jobqueue.job import JsonValue
from jobqueue.prometheus import PrometheusMetrics
from jobqueue.tasks import Registry

JOBS = 1_000
OURS = str(Path(jobqueue.__file__).parent)

NOT_ALWAYS_CALLS = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>"})
"""From Python 3.12 on these are part of the function around them."""

ONE_MORE_IS_SEEN = int(sys.version_info >= (3, 12))
"""A call in C for each job that Python 3.11 does not tell of."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lines at INFO are not shown, and so must cost nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@dataclass(slots=True)
class Calls:
    """How many there were, and how many of them had this project's code on one side."""

    all: int = 0
    ours: int = 0

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Count it, if it is a call. In C there is no frame of its own: that is the caller's."""
        if event == "c_call" or (event == "call" and frame.f_code.co_name not in NOT_ALWAYS_CALLS):
            self.all += 1
            self.ours += frame.f_code.co_filename.startswith(OURS)


@pytest.mark.parametrize(
    ("result", "most", "most_of_ours"),
    [
        (None, 168, 101.5),  # 152.6 and 100.7 when this was written; 149 to 151 of all on later Pythons
        ({"n": 1}, 185, 113.5),  # 168.6 and 112.7; 165 to 167
    ],
    ids=["nothing", "a result"],
)
async def test_running_a_job_takes_a_bounded_number_of_calls(
    result: JsonValue, most: float, most_of_ours: float
) -> None:
    registry = Registry()

    @registry.task("noop")
    async def noop() -> JsonValue:
        return result

    metrics = PrometheusMetrics(types=["noop"])
    wire = Wire(waiting(JOBS), metrics)
    pool = wired_pool(wire, registry, metrics)

    calls = Calls()
    with telling_of_calls(calls.note):
        poller = asyncio.create_task(pool.poller.run())
        await asyncio.wait_for(wire.all_completed.wait(), 60)
    await end(pool, poller)

    assert not pool.running
    assert calls.all / JOBS <= most
    assert calls.ours / JOBS <= most_of_ours + ONE_MORE_IS_SEEN
