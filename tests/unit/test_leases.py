import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
import structlog.testing

from jobqueue.clock import OffsetMeter, ServerClock
from jobqueue.errors import Unavailable
from jobqueue.job import Claim, JobId, LeaseId
from jobqueue.leases import LOOP_DEATH_SECONDS, Contact, LeaseKeeper, LeaseThread, Notice
from jobqueue.repository import Held, ServerHello

NOW = datetime(2026, 2, 2, tzinfo=UTC)
LEASE = timedelta(seconds=30)
A = Claim(JobId("a"), LeaseId("L1"))
B = Claim(JobId("b"), LeaseId("L1"))


@pytest.fixture
def keeper() -> LeaseKeeper:
    keeper = LeaseKeeper(LEASE)
    keeper.add(A, expires_at=NOW + LEASE, renew_until=NOW + timedelta(hours=1))
    return keeper


def test_a_lease_is_due_when_a_third_of_it_is_used(keeper: LeaseKeeper) -> None:
    assert keeper.due(NOW + timedelta(seconds=9), monotonic=0) == []
    assert keeper.due(NOW + timedelta(seconds=10), monotonic=0) == [A]


def test_a_renewed_lease_is_not_due_before_its_time(keeper: LeaseKeeper) -> None:
    now = NOW + timedelta(seconds=10)
    keeper.renewed([A], now + LEASE)

    assert keeper.due(now + timedelta(seconds=9), monotonic=0) == []


def test_a_renewal_that_failed_is_due_again_at_once(keeper: LeaseKeeper) -> None:
    now = NOW + timedelta(seconds=12)
    assert keeper.due(now, monotonic=0) == [A]

    assert keeper.due(now, monotonic=0) == [A]


def test_nothing_is_renewed_past_its_limit(keeper: LeaseKeeper) -> None:
    assert keeper.due(NOW + timedelta(hours=1), monotonic=0) == []


def test_nothing_is_renewed_when_the_event_loop_is_dead(keeper: LeaseKeeper) -> None:
    keeper.loop_ticked(100.0)
    late = NOW + timedelta(seconds=20)

    assert keeper.due(late, monotonic=100.0 + LOOP_DEATH_SECONDS) == [A]
    assert keeper.due(late, monotonic=101.0 + LOOP_DEATH_SECONDS) == []


def test_an_attempt_that_ended_is_not_renewed(keeper: LeaseKeeper) -> None:
    keeper.remove(A)

    assert keeper.due(NOW + timedelta(seconds=20), monotonic=0) == []


def test_a_job_under_another_lease_or_none_or_gone_is_lost(keeper: LeaseKeeper) -> None:
    gone = Claim(JobId("gone"), LeaseId("L1"))
    for claim in (B, gone):
        keeper.add(claim, expires_at=NOW + LEASE, renew_until=NOW + timedelta(hours=1))
    held = {A.job_id: Held(LeaseId("L2"), cancel_requested=False), B.job_id: Held(None, cancel_requested=False)}

    assert keeper.judge([A, B, gone], held) == [(A, Notice.LOST), (B, Notice.LOST), (gone, Notice.LOST)]


def test_a_cancel_request_is_told_once(keeper: LeaseKeeper) -> None:
    held = {A.job_id: Held(A.lease_id, cancel_requested=True)}

    assert keeper.judge([A], held) == [(A, Notice.CANCEL_REQUESTED)]
    assert keeper.judge([A], held) == []


def test_with_an_attempt_that_ended_is_forgotten_what_was_told_of_it(keeper: LeaseKeeper) -> None:
    held = {A.job_id: Held(A.lease_id, cancel_requested=True)}
    keeper.judge([A], held)

    keeper.remove(A)
    keeper.add(A, expires_at=NOW + LEASE, renew_until=NOW + timedelta(hours=1))

    assert keeper.judge([A], held) == [(A, Notice.CANCEL_REQUESTED)]


def test_an_attempt_that_ended_while_it_was_renewed_is_not_there_again(keeper: LeaseKeeper) -> None:
    keeper.remove(A)

    keeper.renewed([A], NOW + 2 * LEASE)

    assert len(keeper) == 0


def test_nothing_is_said_of_an_attempt_that_ended_meanwhile(keeper: LeaseKeeper) -> None:
    keeper.remove(A)

    assert keeper.judge([A], {}) == []


def test_contact_is_steady_from_the_first_answer_on() -> None:
    contact = Contact(longest_gap=10)
    assert contact.steady_seconds(5) == 0

    contact.made("p1", monotonic=5)
    contact.made("p1", monotonic=10)

    assert contact.steady_seconds(12) == 7


@pytest.mark.parametrize("interruption", ["failure", "another primary", "a gap", "silence"])
def test_contact_starts_anew_after(interruption: str) -> None:
    contact = Contact(longest_gap=10)
    contact.made("p1", monotonic=0)
    contact.made("p1", monotonic=9)
    match interruption:
        case "failure":
            contact.broken()
            contact.made("p1", monotonic=18)
            expected = {18: 0.0, 20: 2.0}
        case "another primary":
            contact.made("p2", monotonic=18)
            expected = {18: 0.0, 20: 2.0}
        case "a gap":  # a frozen process comes back: 9 -> 20 is longer than 10
            contact.made("p1", monotonic=20)
            expected = {20: 0.0, 21: 1.0}
        case _:  # the latest answer is older than the longest gap
            expected = {20: 0.0}

    assert {at: contact.steady_seconds(at) for at in expected} == expected


class LocalTime:
    def __init__(self) -> None:
        self.seconds = NOW.timestamp()

    def __call__(self) -> float:
        return self.seconds


def test_the_clock_follows_the_quickest_answer() -> None:
    local = LocalTime()
    clock = ServerClock(local=local)
    meter = OffsetMeter(clock)

    # The server is 10 s ahead: the slow answer took 2 s, of which 1.9 s on the way back.
    meter.measured(NOW + timedelta(seconds=8.1), round_trip_seconds=2.0, primary="p")
    assert meter.offset == timedelta(seconds=9.1)
    meter.measured(NOW + timedelta(seconds=10), round_trip_seconds=0.0, primary="p")
    meter.measured(NOW + timedelta(seconds=9.6), round_trip_seconds=0.2, primary="p")

    assert meter.offset == timedelta(seconds=10)


def test_a_step_of_the_clock_is_told_but_not_the_first_measurement() -> None:
    meter = OffsetMeter(ServerClock(local=LocalTime()))

    assert not meter.measured(NOW + timedelta(minutes=5), round_trip_seconds=0.01, primary="p1")
    assert not meter.measured(NOW + timedelta(minutes=5, milliseconds=20), round_trip_seconds=0.01, primary="p1")
    assert meter.measured(NOW + timedelta(minutes=6), round_trip_seconds=0.01, primary="p1")


def test_a_server_whose_clock_is_set_back_is_followed_where_others_are_judged() -> None:
    local = LocalTime()
    clock = ServerClock(local=local, monotonic=local)
    clock.correct(timedelta(seconds=60))
    before = clock.now()

    clock.correct(timedelta(seconds=30))

    assert clock.now() == before
    assert clock.surely_past() == before - timedelta(seconds=30)


def test_a_machine_whose_clock_is_set_does_not_think_that_others_are_late() -> None:
    local, since_boot = LocalTime(), LocalTime()
    clock = ServerClock(local=local, monotonic=since_boot)
    clock.correct(timedelta(0))
    before = clock.surely_past()

    local.seconds += 300
    since_boot.seconds += 1

    assert clock.surely_past() == before + timedelta(seconds=1)


def test_setting_the_clock_of_a_machine_does_not_move_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, wall = ServerClock(), time.time
    before = clock.now()

    monkeypatch.setattr(time, "time", lambda: wall() + 3600)

    assert clock.now() - before < timedelta(minutes=30)


def test_time_never_goes_back_when_the_offset_shrinks() -> None:
    local = LocalTime()
    clock = ServerClock(local=local)
    clock.correct(timedelta(seconds=60))
    before = clock.now()

    clock.correct(timedelta(0))
    local.seconds += 30

    assert clock.now() == before
    local.seconds += 31
    assert clock.now() > before


class FakeStore:
    """A lease store whose answers are set by the test."""

    def __init__(self) -> None:
        self.renewals: list[tuple[Sequence[Claim], datetime]] = []
        self.under: dict[JobId, Held] = {}
        self.ahead = timedelta(0)
        self.away = False
        self.odd = False
        self.waits_seconds = [0.001]
        self.closed = False

    def hello(self) -> ServerHello:
        if self.odd:
            raise KeyError("localTime")
        if self.away:
            raise Unavailable("away")
        waited = self.waits_seconds.pop(0) if len(self.waits_seconds) > 1 else self.waits_seconds[0]
        return ServerHello(datetime.now(UTC) + self.ahead, waited, "p")

    def renew(self, claims: Sequence[Claim], expires_at: datetime) -> None:
        self.renewals.append((claims, expires_at))

    def held(self, job_ids: Sequence[JobId]) -> Mapping[JobId, Held]:
        return {job_id: self.under[job_id] for job_id in job_ids if job_id in self.under}

    def close(self) -> None:
        self.closed = True


class Beats:
    """A lease thread that is never started; the test makes it beat."""

    def __init__(self) -> None:
        self.store, self.clock = FakeStore(), ServerClock()
        self.keeper, self.contact = LeaseKeeper(LEASE), Contact(longest_gap=15)
        self.news: list[tuple[Claim, Notice]] = []
        self.thread = LeaseThread(
            self.keeper,
            lambda: self.store,
            lease=LEASE,
            clock=self.clock,
            meter=OffsetMeter(self.clock),
            contact=self.contact,
            notify=self.news.extend,
        )

    def beat(self) -> None:
        self.thread.try_beat(self.store)


def test_a_beat_renews_what_is_due_and_tells_what_was_lost() -> None:
    beats = Beats()
    now = beats.clock.now()
    for claim, job_lease in ((A, A.lease_id), (B, LeaseId("other"))):
        beats.keeper.add(claim, expires_at=now + LEASE / 2, renew_until=now + timedelta(hours=1))
        beats.store.under[claim.job_id] = Held(job_lease, cancel_requested=False)

    beats.beat()

    [(renewed, expires_at)] = beats.store.renewals
    assert set(renewed) == {A, B}
    assert expires_at >= now + LEASE
    assert beats.news == [(B, Notice.LOST)]


def test_what_was_renewed_is_left_alone_by_the_next_beat() -> None:
    beats = Beats()
    now = beats.clock.now()
    beats.keeper.add(A, expires_at=now + LEASE / 2, renew_until=now + timedelta(hours=1))

    beats.beat()
    beats.beat()

    assert len(beats.store.renewals) == 1


def test_a_step_of_the_servers_clock_breaks_the_contact() -> None:
    beats = Beats()
    beats.beat()
    between = beats.clock.monotonic()
    beats.store.ahead = timedelta(minutes=1)

    beats.beat()

    assert beats.contact.steady_seconds(between) <= 0, "contact since before the step"


def test_the_thread_tells_of_its_first_beat_and_disconnects_at_its_end() -> None:
    beats = Beats()
    beats.thread.start()

    assert beats.thread.wait_for_first_beat(30)
    beats.thread.stop()

    assert beats.store.closed


def test_a_beat_without_an_answer_breaks_the_contact() -> None:
    beats = Beats()
    beats.beat()
    beats.store.away = True

    beats.beat()

    assert beats.contact.steady_seconds(beats.clock.monotonic() + 1) == 0


def test_a_beat_that_waited_for_the_server_to_come_back_is_no_step_of_its_clock() -> None:
    beats = Beats()
    beats.beat()
    beats.store.waits_seconds = [5.5, 0.001]

    with structlog.testing.capture_logs() as lines:
        beats.beat()

    assert lines == []
    assert beats.contact.steady_seconds(beats.clock.monotonic() + 1) > 1


def test_a_beat_that_meets_what_nobody_thought_of_is_not_the_last() -> None:
    beats = Beats()
    beats.beat()
    beats.store.odd = True

    beats.beat()

    assert beats.contact.steady_seconds(beats.clock.monotonic() + 1) == 0
    beats.store.odd = False
    beats.beat()
    assert beats.contact.steady_seconds(beats.clock.monotonic() + 1) > 0
