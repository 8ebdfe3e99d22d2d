"""What tasks log: whatever it is it is kept, bounded, and never costs the task anything."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog
from bench import NOW
from hand_clock import HandClock

from jobqueue import logs
from jobqueue.errors import Unavailable
from jobqueue.job import MAX_LOG_BYTES, MAX_LOG_LINES, JobId, LogLine
from jobqueue.job_log import JobLog
from jobqueue.log_lines import MAX_FIELDS, line_bytes, make_line
from jobqueue.repository import JobRepository
from jobqueue.task_logger import task_logger
from jobqueue.values import check_value

JOB = JobId("job-1")


HURRY = contextvars.ContextVar("hurry", default=False)
"""Stands for what a `pymongo.timeout` sets: a deadline for all that is done in the same context."""


def in_a_hurry(do: Callable[[], None]) -> None:
    HURRY.set(True)
    do()


class Broken:
    def __str__(self) -> str:
        raise ValueError("no")


class Store:
    """Takes lines; `gate` holds them up, `broken` refuses them."""

    def __init__(self) -> None:
        self.lines: dict[str, list[LogLine]] = {}
        self.batches = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = False
        self.arrived = asyncio.Event()
        self.hurried: list[bool] = []

    async def append_logs(self, job_id: str, lines: Sequence[LogLine]) -> None:
        self.batches += 1
        self.hurried.append(HURRY.get())
        self.arrived.set()
        await self.gate.wait()
        if self.broken:
            raise Unavailable("away")
        self.lines.setdefault(job_id, []).extend(lines)

    def messages(self) -> list[str]:
        return [line.message for line in self.lines.get(JOB, [])]


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def job_log(store: Store) -> JobLog:
    return JobLog(cast(JobRepository, store), HandClock(NOW))


def log_line(job_log: JobLog, message: object, **fields: Any) -> None:
    job_log.keep(JOB, 1, "info", message, fields)


VALUES: dict[str, Any] = {
    "null": None,
    "number": 1.5,
    "operators": {"$set": {"a.b": 1}},
    "time": datetime(2026, 2, 2, tzinfo=UTC),
    "set": {1, 2},
    "beyond int64": 2**80,
    "nan": float("nan"),
    "lone surrogate": "\ud800",
    "NUL in a key": {"\0": 1},
    "bytes": b"\xff",
    "object": object(),
    "unshowable": Broken(),
    "unshowable within": {"deep": Broken()},
    "breaking while it is read": (1 // n for n in (1, 0)),
    "long list": ["x" * 5_000] * 10,
    "long text": "x" * 1_000_000,
}


@pytest.mark.parametrize("kind", VALUES)
def test_any_field_can_be_stored_and_is_bounded(kind: str) -> None:
    line = make_line(at=NOW, attempt=1, level="info", message="m", fields={"value": VALUES[kind]})

    assert not check_value(line.fields)
    assert line_bytes(line) < 4_096


@pytest.mark.parametrize("kind", ["long text", "lone surrogate", "number", "unshowable"])
def test_any_message_can_be_stored_and_is_bounded(kind: str) -> None:
    line = make_line(at=NOW, attempt=1, level="info", message=VALUES[kind], fields={})

    assert not check_value(line.message)
    assert line_bytes(line) < 4_096


def test_fields_are_bounded_in_number_and_together() -> None:
    many = make_line(at=NOW, attempt=1, level="info", message="m", fields={str(n): n for n in range(1_000)})
    large = make_line(at=NOW, attempt=1, level="info", message="m", fields={str(n): "x" * 2_000 for n in range(10)})

    assert len(many.fields) == MAX_FIELDS
    assert large.fields == {"truncated": True, "bytes": 20_020}


def test_of_a_long_text_the_beginning_and_the_end_are_kept() -> None:
    line = make_line(at=NOW, attempt=1, level="info", message="m", fields={"text": "first" + "x" * 9_000 + "last"})

    assert line.fields["text"].startswith("first")
    assert line.fields["text"].endswith("last")


async def test_a_flush_returns_when_all_lines_so_far_are_written_in_order(job_log: JobLog, store: Store) -> None:
    store.gate.clear()
    log_line(job_log, "one")
    first = asyncio.create_task(job_log.flush(JOB))
    await store.arrived.wait()
    log_line(job_log, "two")
    second = asyncio.create_task(job_log.flush(JOB))
    await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()

    store.gate.set()
    await second

    assert store.messages() == ["one", "two"]
    await first
    await job_log.aclose()


async def test_lines_are_written_before_long_without_a_flush(job_log: JobLog, store: Store) -> None:
    log_line(job_log, "one")
    log_line(job_log, "two")

    async with asyncio.timeout(30):
        await store.arrived.wait()

    await job_log.aclose()
    assert (store.messages(), store.batches) == (["one", "two"], 1)


async def test_a_deadline_around_a_line_is_not_one_for_what_all_log(job_log: JobLog, store: Store) -> None:
    contextvars.copy_context().run(in_a_hurry, lambda: log_line(job_log, "one"))
    job_log.keep(JobId("job-2"), 1, "info", "two", {})

    async with asyncio.timeout(30):
        await store.arrived.wait()

    await job_log.aclose()
    assert store.hurried == [False, False]


async def test_lines_may_come_from_any_thread(job_log: JobLog, store: Store) -> None:
    def log_some() -> None:
        for n in range(20):
            log_line(job_log, n)

    threads = [threading.Thread(target=log_some) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    await job_log.aclose()

    assert sorted(store.messages()) == sorted(str(n) for n in range(20) for _ in range(5))


async def test_what_waits_is_bounded_to_the_newest(job_log: JobLog, store: Store) -> None:
    for n in range(1_000):
        log_line(job_log, str(n))
    await job_log.flush(JOB)
    few = store.messages()
    store.lines.clear()
    for n in range(1_000):
        log_line(job_log, f"{n}" + "x" * 2_000)
    await job_log.aclose()

    assert few == [str(n) for n in range(1_000 - MAX_LOG_LINES, 1_000)]
    assert sum(line_bytes(line) for line in store.lines[JOB]) <= MAX_LOG_BYTES
    assert store.messages()[-1].startswith("999x")


async def test_lines_that_cannot_be_written_are_dropped_and_cost_nobody_anything(job_log: JobLog, store: Store) -> None:
    store.broken = True
    log_line(job_log, "lost")
    await job_log.flush(JOB)
    store.broken = False
    log_line(job_log, "kept")

    await job_log.flush(JOB)
    await job_log.aclose()

    assert store.messages() == ["kept"]


@pytest.fixture
def process_log() -> Iterator[io.StringIO]:
    """The log of the process, from WARNING on, as JSON."""
    stream, before = io.StringIO(), structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    logs.configure("WARNING", "json", stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    structlog.configure(**before)


def test_lines_go_to_both_logs_and_to_the_jobs_also_below_the_level_of_the_process(process_log: io.StringIO) -> None:
    kept: list[tuple[str, object, dict[str, Any]]] = []
    logger = task_logger(lambda level, message, fields: kept.append((level, message, dict(fields)))).bind(job_id=JOB)

    logger.debug("unheard", n=0)
    logger.info("quiet", n=1)
    logger.bind(step=2).warning("loud %s", "!", n=2, uri="mongodb://user:secret@host")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("broke")

    assert kept[:2] == [
        ("info", "quiet", {"n": 1}),
        ("warning", "loud !", {"step": 2, "n": 2, "uri": "mongodb://***@host"}),
    ]
    assert (kept[2][0], kept[2][1]) == ("error", "broke")
    assert "ValueError: boom" in kept[2][2]["exception"]
    shown = process_log.getvalue()
    assert "quiet" not in shown
    assert '"event": "loud !"' in shown
    assert f'"job_id": "{JOB}"' in shown


def test_no_call_fails_and_what_it_says_is_kept(process_log: io.StringIO) -> None:
    kept: list[tuple[object, dict[str, Any]]] = []
    logger = task_logger(lambda level, message, fields: kept.append((message, dict(fields))))
    itself: dict[str, Any] = {}
    itself["self"] = itself

    logger.warning("counted", counts={(1, 2): 3})
    logger.warning("around", value=itself)
    logger.warning("unshowable", value=Broken())
    logger.warning("%d done", "all")

    assert [message for message, _ in kept] == ["counted", "around", "unshowable", "%d done all"]
    assert kept[1][1] == {"value": "{'self': {...}}"}
    assert process_log.getvalue().count("\n") == 4
