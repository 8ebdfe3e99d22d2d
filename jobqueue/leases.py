"""Leases: who may write about a running job, and for how long.

`LeaseKeeper` is the logic (what to renew, what was lost, whom to tell); it does no I/O and reads no clock.
`LeaseThread` is a thin shell around it: a thread with a synchronous connection of its own, so that a task that
blocks the event loop keeps its lease. (Code that holds the GIL without pause stops this thread too.)

Invariants:
- Only leases of the running table are renewed, by job id and lease id, and a renewal never shortens a lease.
- A job stays in the table until its outcome is acknowledged, so it is not rescued while that is being written.
- Nothing is renewed past `renew_until`, nor when the event loop has been dead for `LOOP_DEATH_SECONDS`: a
  process that cannot time its jobs out must not keep them for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import structlog

from jobqueue.clock import CLOCK_STEP, Clock, OffsetMeter
from jobqueue.errors import Unavailable
from jobqueue.job import Claim, JobId
from jobqueue.repository import Held, LeaseStore, ServerHello

BEATS_PER_LEASE = 6
"""The thread looks this often in the length of a lease; a lease is renewed when a third of it is used."""
RENEWALS_PER_LEASE = 3
LOOP_DEATH_SECONDS = 600.0

log = structlog.get_logger(__name__)


class Notice(Enum):
    """What a look at the store says about a running attempt."""

    LOST = "lost"
    CANCEL_REQUESTED = "cancel requested"


@dataclass(slots=True)
class _Lease:
    expires_at: datetime
    renew_until: datetime


class LeaseKeeper:
    """The running table as far as leases go. Safe to use from several threads."""

    def __init__(self, lease: timedelta) -> None:
        self._lease = lease
        self._leases: dict[Claim, _Lease] = {}
        self._told: set[tuple[Claim, Notice]] = set()
        self._loop_seen_at = float("inf")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, claim: Claim, *, expires_at: datetime, renew_until: datetime) -> None:
        """Renew this lease from now on."""
        with self._lock:
            self._leases[claim] = _Lease(expires_at, renew_until)

    def remove(self, claim: Claim) -> None:
        """Stop renewing this lease: its outcome is acknowledged, or it is lost."""
        with self._lock:
            self._leases.pop(claim, None)
            if self._told:
                self._told.difference_update([(claim, notice) for notice in Notice])

    def claims(self) -> list[Claim]:
        """Every lease of the running table."""
        with self._lock:
            return list(self._leases)

    def loop_ticked(self, monotonic: float) -> None:
        """The event loop is alive. Until the first call it is taken to be."""
        self._loop_seen_at = monotonic

    def due(self, now: datetime, *, monotonic: float) -> list[Claim]:
        """The leases to renew now."""
        if monotonic - self._loop_seen_at > LOOP_DEATH_SECONDS:
            return []
        threshold = now + self._lease * (1 - 1 / RENEWALS_PER_LEASE)
        with self._lock:
            return [c for c, held in self._leases.items() if held.expires_at <= threshold and now < held.renew_until]

    def renewed(self, claims: Collection[Claim], expires_at: datetime) -> None:
        """These were renewed in the store (those that were still ours, at least)."""
        with self._lock:
            for claim in claims:
                if claim in self._leases:
                    self._leases[claim].expires_at = expires_at

    def judge(self, claims: Collection[Claim], held: Mapping[JobId, Held]) -> list[tuple[Claim, Notice]]:
        """What a read of these jobs, begun after `claims` were listed, says about them; each notice is given once."""
        with self._lock:
            notices = [
                (claim, notice)
                for claim in claims
                if claim in self._leases and (notice := _judge(claim, held.get(claim.job_id)))
            ]
            news = [notice for notice in notices if notice not in self._told]
            self._told.update(news)
            return news


def _judge(claim: Claim, held: Held | None) -> Notice | None:
    if held is None or held.lease_id != claim.lease_id:
        return Notice.LOST
    return Notice.CANCEL_REQUESTED if held.cancel_requested else None


class Contact:
    """Since when this process has been in unbroken contact with one and the same primary.

    After an outage or an election every lease may look expired although its owner lives and is about to renew
    it. So nobody may be rescued before the contact has been steady for long enough."""

    def __init__(self, *, longest_gap: float) -> None:
        self._longest_gap = longest_gap
        self._primary: str | None = None
        self._since: float | None = None
        self._latest = 0.0

    def made(self, primary: str, *, monotonic: float) -> None:
        """The primary answered. A long gap (a frozen process) counts as a break, as does another primary."""
        if self._since is None or primary != self._primary or monotonic - self._latest > self._longest_gap:
            self._since = monotonic
        self._primary = primary
        self._latest = monotonic

    def broken(self) -> None:
        """The primary did not answer, or time made a step."""
        self._since = None

    def steady_seconds(self, monotonic: float) -> float:
        """For how long contact has been unbroken; 0 when it is not, or when the latest answer is old."""
        if self._since is None or monotonic - self._latest > self._longest_gap:
            return 0.0
        return monotonic - self._since


def _hello(store: LeaseStore) -> ServerHello:
    """The primary's clock. An answer that took long may have waited for a server or a connection: half of that time
    would look like a step of the clock. Now they are there, so it is asked for again."""
    hello = store.hello()
    return store.hello() if hello.round_trip_seconds / 2 > CLOCK_STEP.total_seconds() else hello


class LeaseThread:
    """Renews leases, measures the server's clock and watches the contact, each `lease / BEATS_PER_LEASE`.

    `notify` is called in this thread, with the news about running attempts."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        connect: Callable[[], LeaseStore],
        *,
        lease: timedelta,
        clock: Clock,
        meter: OffsetMeter,
        contact: Contact,
        notify: Callable[[Sequence[tuple[Claim, Notice]]], None],
    ) -> None:
        self._keeper = keeper
        self._connect = connect
        self._lease = lease
        self._clock = clock
        self._meter = meter
        self._contact = contact
        self._notify = notify
        self._stop = threading.Event()
        self._first_beat = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def wait_for_first_beat(self, seconds: float) -> bool:
        """Block until the server's clock was measured once. Returns whether it was."""
        return self._first_beat.wait(seconds)

    def stop(self) -> None:
        """End the thread; blocks for as long as a beat takes."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        store = self._connect()
        pause = self._lease.total_seconds() / BEATS_PER_LEASE
        try:
            while not self._stop.is_set():
                self.try_beat(store)
                self._stop.wait(pause)
        finally:
            store.close()

    def try_beat(self, store: LeaseStore) -> None:
        """Beat once. A store that does not answer breaks the contact and is asked again at the next beat."""
        try:
            self._beat(store)
            self._first_beat.set()
        except Unavailable as error:
            self._contact.broken()
            log.warning("no contact with MongoDB", reason=str(error), leases=len(self._keeper))
        except Exception:  # a thread that ends renews nothing
            self._contact.broken()
            log.exception("beat failed", leases=len(self._keeper))

    def _beat(self, store: LeaseStore) -> None:
        hello = _hello(store)
        if self._meter.measured(hello.local_time, round_trip_seconds=hello.round_trip_seconds, primary=hello.primary):
            self._contact.broken()
            log.warning("clock stepped", offset_seconds=self._meter.offset.total_seconds())
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._contact.made(hello.primary, monotonic=monotonic)
        self._renew(store, self._keeper.due(now, monotonic=monotonic), now + self._lease)
        self._look_around(store, self._keeper.claims())

    def _renew(self, store: LeaseStore, due: Sequence[Claim], expires_at: datetime) -> None:
        if due:
            store.renew(due, expires_at)
            self._keeper.renewed(due, expires_at)

    def _look_around(self, store: LeaseStore, claims: Sequence[Claim]) -> None:
        if claims:
            news = self._keeper.judge(claims, store.held([claim.job_id for claim in claims]))
            if news:
                self._notify(news)
