"""How many jobs are accepted a second, by all processes together: a token bucket that they share.

In the store there is one number, the *meter*: up to which microsecond the accepted jobs have used the rate up
(the "theoretical arrival time" of the generic cell rate algorithm). Accepting moves it on; it may run ahead of the
time by one second's worth, which is the burst, and lag behind without saving anything up. A process moves it for a
twentieth of a second's jobs in advance and hands these out from memory; moving is a compare-and-set. While the
meter as last seen leaves nothing, a refusal needs no look at the store.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from jobqueue.clock import Clock
from jobqueue.errors import RateLimited, Unavailable
from jobqueue.repository import JobRepository

METER = "accepted"
SECOND = 1_000_000
ADVANCES_A_SECOND = 20
"""How often a process asks for more, at most, when it does not get all it could use."""

ADVANCE_SECONDS = 1.0
"""What was asked for in advance and not used in that time is lost, so that nobody saves up a second burst."""

RACES = 10
"""How often the meter is read again because another process moved it in the same moment."""

DOWN_SECONDS = 1.0
"""After the store did not answer, those who stand in line are told so without asking it one after the other."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What the meter gives now: `tokens`, standing at `to` afterwards; or none, and how long to wait for enough."""

    tokens: int
    to: int
    wait_micros: int = 0


def draw(meter: int, now: int, *, a_second: int, at_least: int, at_most: int) -> Draw:
    """Take from a meter; it and `now` are in microseconds.

    A meter further ahead than it may run (clocks differ a little) counts as just used up."""
    stands = min(max(meter, now), now + SECOND)
    free = (now + SECOND - stands) * a_second // SECOND
    if free < at_least:
        return Draw(0, meter, stands + _micros(at_least, a_second) - (now + SECOND))
    tokens = min(at_most, free)
    return Draw(tokens, stands + _micros(tokens, a_second))


class RateLimit:
    """The tokens that this process has in advance, and getting more of them."""

    def __init__(self, jobs: JobRepository, *, a_second: int, clock: Clock) -> None:
        self._jobs = jobs
        self._a_second = a_second
        self._advance = max(1, a_second // ADVANCES_A_SECOND)
        self._clock = clock
        self._tokens = 0
        self._expire = float("-inf")
        self._meter = 0
        self._ask_again = float("-inf")
        self._down_until = float("-inf")
        self._line = asyncio.Lock()

    async def take(self, jobs: int) -> None:
        """Take a token for each of these jobs. Raises `RateLimited`, `Unavailable`."""
        if self._take_at_hand(jobs):
            return
        self._refuse_without_looking(jobs)
        async with self._line:
            if not self._take_at_hand(jobs):
                self._refuse_without_looking(jobs)
                try:
                    await self._take_from_meter(jobs)
                except Unavailable:
                    self._down_until = self._clock.monotonic() + DOWN_SECONDS
                    raise

    def give_back(self, jobs: int) -> None:
        """These were not accepted after all."""
        self._tokens += jobs

    @property
    def _at_hand(self) -> int:
        return self._tokens if self._clock.monotonic() < self._expire else 0

    def _take_at_hand(self, jobs: int) -> bool:
        if self._at_hand < jobs:
            return False
        self._tokens -= jobs
        return True

    def _refuse_without_looking(self, jobs: int) -> None:
        if jobs > self._a_second:
            raise self._refusal(SECOND)
        if self._clock.monotonic() < self._down_until:
            raise Unavailable("cannot limit the rate: MongoDB did not answer")
        if self._clock.monotonic() < self._ask_again:
            raise self._refusal(SECOND // ADVANCES_A_SECOND)
        drawn = self._draw(jobs - self._at_hand)
        if not drawn.tokens and not self._is_astray():
            raise self._refusal(drawn.wait_micros)

    async def _take_from_meter(self, jobs: int) -> None:
        for _ in range(RACES):
            self._meter = await self._jobs.read_meter(METER)
            if self._is_astray():
                await self._jobs.move_meter(METER, seen=self._meter, to=self._now() + SECOND)
                continue
            drawn = self._draw(jobs - self._at_hand)
            if not drawn.tokens:
                if not self._draw(1).tokens:
                    self._pause()  # where there are too few for many, there may be enough for one
                raise self._refusal(drawn.wait_micros)
            if await self._jobs.move_meter(METER, seen=self._meter, to=drawn.to):
                return self._keep(drawn, jobs)
        raise self._refusal(SECOND // ADVANCES_A_SECOND)

    def _keep(self, drawn: Draw, jobs: int) -> None:
        self._meter = drawn.to
        self._tokens = self._at_hand + drawn.tokens - jobs
        self._expire = self._clock.monotonic() + ADVANCE_SECONDS
        if drawn.tokens < self._advance:
            self._pause()

    def _draw(self, missing: int) -> Draw:
        at_most = max(missing, self._advance)
        return draw(self._meter, self._now(), a_second=self._a_second, at_least=missing, at_most=at_most)

    def _is_astray(self) -> bool:
        """Whether the meter is where no process can have moved it by the clock as it is: that was set back, and until
        it has caught up nothing would be accepted. So the meter is set back too."""
        return self._meter > self._now() + 2 * SECOND

    def _now(self) -> int:
        # In microseconds; not `now`, which stands still after the server's clock was set back.
        return int(self._clock.surely_past().timestamp() * 1000) * 1000

    def _pause(self) -> None:
        # Tokens come in one by one; asking for each of them would be a call for nearly every refusal.
        self._ask_again = self._clock.monotonic() + 1 / ADVANCES_A_SECOND

    def _refusal(self, wait_micros: int) -> RateLimited:
        return RateLimited(limit=self._a_second, retry_after_seconds=max(1, math.ceil(wait_micros / SECOND)))


def _micros(tokens: int, a_second: int) -> int:
    return math.ceil(tokens * SECOND / a_second)
