"""Time and chance, injected.

Leases and `runAt` are compared by many machines, so the time in them is the database server's: the local
clock corrected by an offset that `ServerClock` is told after each `hello`. Within a process it never goes
back, so a correction can delay a lease but never shorten one that was already written.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

from jobqueue.job import EPOCH, NEAR, JobId, LeaseId, to_milliseconds

CLOCK_STEP = timedelta(seconds=1)
"""A correction larger than this is a step: worth a log line, and a new start for the reaper's patience."""

OFFSET_SAMPLES = 8
"""Of so many of the latest answers the quickest counts."""


class Clock(Protocol):
    """Where the engine takes its time from."""

    def now(self) -> datetime:
        """The server's time: aware, UTC, whole milliseconds, never earlier than an answer before."""
        ...

    def surely_past(self) -> datetime:
        """A time that has come on the server for certain, as far as the latest measurement goes: for deciding that
        something of somebody else's is over. It follows a server whose clock was set back, and does not follow
        this machine's when that is set."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that only runs forward, for measuring how long something took."""
        ...


class ServerClock:
    """The local clock, corrected to the server's. Safe to use from several threads."""

    def __init__(
        self, *, local: Callable[[], float] | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._local = local or _steady(monotonic)
        self._monotonic = monotonic
        self._offset = timedelta(0)
        self._offset_seconds = 0.0
        self._latest = EPOCH
        self._latest_milliseconds = 0
        self._measured: tuple[datetime, float] | None = None
        self._lock = threading.Lock()

    @property
    def offset(self) -> timedelta:
        """How far the server's clock is ahead of this machine's."""
        return self._offset

    def now(self) -> datetime:
        """The server's time as far as this process knows it."""
        milliseconds = int((self._local() + self._offset_seconds) * 1000)
        with self._lock:
            # Asked several times per job: a date is only made when the millisecond is a new one.
            if milliseconds > self._latest_milliseconds:
                self._latest_milliseconds = milliseconds
                self._latest = EPOCH + timedelta(milliseconds=milliseconds)
            return self._latest

    def surely_past(self) -> datetime:
        """The latest measured time plus what has passed since; the epoch before the first measurement."""
        if self._measured is None:
            return EPOCH
        measured, then = self._measured
        return to_milliseconds(min(measured + timedelta(seconds=self.monotonic() - then), self.now()))

    def monotonic(self) -> float:
        """Seconds since some moment in the past."""
        return self._monotonic()

    def local_now(self) -> datetime:
        """This machine's own time, as it was at the start and has gone on since."""
        return datetime.fromtimestamp(self._local(), UTC)

    def correct(self, offset: timedelta) -> bool:
        """Take a newly measured offset. Returns whether it was a step rather than drift."""
        step = abs(offset - self._offset) > CLOCK_STEP
        self._offset, self._offset_seconds = offset, offset.total_seconds()
        self._measured = self.local_now() + offset, self.monotonic()
        return step


def _steady(monotonic: Callable[[], float]) -> Callable[[], float]:
    """The wall clock of this moment, carried on by a clock that nobody can set. Were the wall clock itself used, a
    step forward would be in `now` until the next measurement, and stay there, since `now` never goes back: this
    process would take every lease of the others for expired."""
    ahead = time.time() - monotonic()
    return lambda: ahead + monotonic()


class OffsetMeter:
    """Measures how far the server's clock is ahead, from the answers to `hello`.

    The quicker an answer, the less it can be wrong, so of the latest few the quickest counts (as in NTP's clock
    filter, RFC 5905 section 10). Another primary has another clock: it starts anew."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, timedelta]] = deque(maxlen=OFFSET_SAMPLES)
        self._primary: str | None = None
        self._measured = False

    @property
    def offset(self) -> timedelta:
        """The offset in force."""
        return self._clock.offset

    def measured(self, server_time: datetime, *, round_trip_seconds: float, primary: str) -> bool:
        """Take the time in an answer that has just arrived. Returns whether the clock made a step."""
        offset = server_time + timedelta(seconds=round_trip_seconds / 2) - self._clock.local_now()
        if primary != self._primary or self._is_step(offset):
            self._samples.clear()
        self._primary = primary
        self._samples.append((round_trip_seconds, offset))
        step = self._clock.correct(min(self._samples)[1])
        first, self._measured = not self._measured, True
        return step and not first

    def _is_step(self, offset: timedelta) -> bool:
        return bool(self._samples) and abs(offset - self._clock.offset) > CLOCK_STEP


class Identifiers:
    """Makes ids and sequence numbers that are unique across processes and ordered within this one."""

    def __init__(self, random: Random | None = None) -> None:
        self._bits = (random or Random(os.urandom(16))).getrandbits
        self._process = self._bits(40)
        self._counter = self._bits(23)
        self._last_seq = 0
        self._moment = EPOCH
        self._prefix = ""
        self._micros = 0

    def job_id(self, now: datetime) -> JobId:
        """24 hex digits in the layout of an ObjectId: seconds, process, counter. Jobs created in one second
        by one process sort in the order of their creation."""
        if now is not self._moment:
            self._see(now)
        self._counter = (self._counter + 1) & 0xFFFFFF
        return JobId(self._prefix + self._counter.to_bytes(3).hex())

    def lease_id(self) -> LeaseId:
        """A lease id that was never used before."""
        return LeaseId(self._bits(96).to_bytes(12).hex())

    def insert_id(self, *, near: bool) -> str:
        """A random mark by which an insert recognises its own document; `near` where it is stored beside workers."""
        return NEAR + self.token() if near else self.token()

    def token(self) -> str:
        """A random mark."""
        return self._bits(64).to_bytes(8).hex()

    def seq(self, now: datetime) -> int:
        """Creation order: microseconds with random low bits, strictly increasing in this process, an int64."""
        if now is not self._moment:
            self._see(now)
        self._last_seq = max(self._last_seq + 1, self._micros + self._bits(9))
        return self._last_seq

    def _see(self, now: datetime) -> None:
        # Once for all jobs of a millisecond: the clock gives them one and the same object.
        self._moment, timestamp = now, now.timestamp()
        self._prefix = f"{int(timestamp) & 0xFFFFFFFF:08x}{self._process:010x}"
        self._micros = int(timestamp * 1000) * 1000
