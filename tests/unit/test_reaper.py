"""When the jobs of workers that went silent are taken back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import cast

from hand_clock import HandClock

from jobqueue.dispatch import Dispatcher, SignallingDispatcher
from jobqueue.leases import Contact
from jobqueue.maintenance import Reaper
from jobqueue.repository import JobRepository, Rescued

LEASE = timedelta(seconds=30)


class Looking:
    """Somebody is dead. The test says what happens while that is looked for."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile
        self.rescued = 0

    async def rescue(self, *, cutoff: datetime, at: datetime, limit: int, still: Callable[[], bool]) -> Rescued:
        self.meanwhile()
        self.rescued += still()
        return Rescued()


async def rescued(*, steady_seconds: float, meanwhile: Callable[[Contact], None] = lambda contact: None) -> int:
    clock, contact = HandClock(), Contact(longest_gap=15)
    contact.made("primary", monotonic=0)
    clock.seconds = steady_seconds
    contact.made("primary", monotonic=steady_seconds)
    looking = Looking(lambda: meanwhile(contact))
    jobs = cast(JobRepository, looking)
    dispatcher: Dispatcher = SignallingDispatcher(jobs, clock)
    await Reaper(jobs, dispatcher, contact=contact, lease=LEASE, clock=clock, random=Random(1)).step()
    return looking.rescued


async def test_the_dead_are_looked_for_when_contact_was_steady_for_half_a_lease() -> None:
    assert await rescued(steady_seconds=14) == 0
    assert await rescued(steady_seconds=15) == 1


async def test_nobody_is_rescued_when_contact_was_lost_during_the_look() -> None:
    assert await rescued(steady_seconds=15, meanwhile=Contact.broken) == 0


async def test_nobody_is_rescued_when_another_primary_answered_during_the_look() -> None:
    assert await rescued(steady_seconds=15, meanwhile=lambda contact: contact.made("another", monotonic=15)) == 0
