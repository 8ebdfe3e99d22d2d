"""Looks at the store for work: one poller for the whole process, however many slots it has.

It fetches ids in windows and puts them into the `ReadyQueue`. While there is more work than one window it
goes on from where it stopped, because the head of a queue index is where the deleted keys are; at least once
every `poll_seconds` it goes back to the head, so the order of claims is never older than that. With nothing
to do it looks once every `poll_seconds`, or when another process signals. Signals are only hints: rare ones are
followed by a look at once, frequent ones by looks in step, and the store is left alone at least half the time. What a
signal names need not be looked for: who is alone takes it in, several divide it (`contention.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random

import structlog

from jobqueue.clock import Clock
from jobqueue.contention import MAX_WINDOWS, Contention, LeftToOthers
from jobqueue.dispatch import Busy, ReadyQueue
from jobqueue.errors import Unavailable
from jobqueue.job import Candidate
from jobqueue.listening import Listener
from jobqueue.pace import Pace
from jobqueue.repository import WORKER_SILENCE_SECONDS, JobRepository, QueueSignal, Window
from jobqueue.settings import ALL_QUEUES

MAX_WINDOW = 5_000
REFILL = 4
"""The next window is fetched when less than this part of one is left: it arrives while the rest is being run."""
JITTER = 0.1
"""Part of a pause that is random, so that processes which started together do not look together."""
SIGNALLED_SECONDS = 0.01
SIGNALLED_AT_ONCE = 10
"""So many looks in a row may be due to signals, then one in so many seconds."""
CROWDED_LOOK_SECONDS = 0.02
"""How often a crowd is looked for that nobody listens to, while there are slots for more."""
OTHERS_SECONDS = 5.0
"""How old the list of live workers may be while they share."""

log = structlog.get_logger(__name__)


class Poller:
    """Keeps a `ReadyQueue` filled. `on_found` is called when there may be more to claim than before."""

    def __init__(
        self,
        jobs: JobRepository,
        ready: ReadyQueue,
        *,
        queues: Sequence[str],
        window: int,
        poll_seconds: float,
        contention: Contention,
        busy: Busy,
        is_saturated: Callable[[], bool],
        on_found: Callable[[], None],
        clock: Clock,
        random: Random,
    ) -> None:
        """`is_saturated` tells whether more is at hand than there are slots for."""
        self._jobs = jobs
        self._ready = ready
        self._all_queues = tuple(queues) == (ALL_QUEUES,)
        self._queues = set() if self._all_queues else set(queues)
        self._window = min(window, MAX_WINDOW)
        self._poll_seconds = poll_seconds
        self._contention = contention
        self._busy = busy
        self._is_saturated = is_saturated
        self._on_found = on_found
        self._clock = clock
        self._random = random
        self._wake = asyncio.Event()
        self._signalled = Pace(SIGNALLED_SECONDS, burst=SIGNALLED_AT_ONCE, clock=clock)
        self._look_at: float | None = None
        self._head_seen_at = float("-inf")
        self._queues_seen_at = float("-inf")
        self._others_seen_at = float("-inf")
        self._put_off = False
        self._available = True
        self._listener = Listener(
            jobs, serves=self.serves, on_signal=self._hear, on_gap=self.refresh, clock=clock, random=random
        )
        self._missed = False
        self._shared = False
        self._found = 0
        self._left = LeftToOthers(on_time=self.refresh, clock=clock, random=random)

    def serves(self, queue: str) -> bool:
        """Whether jobs of this queue are to be run here."""
        return self._all_queues or queue in self._queues

    def refresh(self) -> None:
        """There is news in the store: look at its head soon."""
        self._head_seen_at = float("-inf")
        self._wake.set()

    def taken(self) -> None:
        """Candidates were taken from the queue; if little is left and the store has more, fetch it."""
        if self._put_off and not len(self._ready):
            self.refresh()
        elif self._is_low():
            self._wake.set()

    def lost(self) -> None:
        """Others have taken what was at hand: forget it, and look again."""
        self._ready.clear()
        self.refresh()

    def missed(self) -> None:
        """A local job was not taken in. Should a look be under way that does not show it, look once more."""
        self._missed = True

    async def run(self) -> None:
        """Look and pause, for ever; cancel it to stop."""
        async with asyncio.TaskGroup() as group:
            took = 0.0
            while True:
                began = self._clock.monotonic()
                await self._try_look()
                self._listen_or_not(group)
                before, took = took, self._clock.monotonic() - began
                # The quicker of the two: a look that was held up once says nothing about what looks cost the store.
                await self._pause(rest=min(before, took))

    async def _try_look(self) -> None:
        self._wake.clear()
        self._missed = self._put_off = False
        self._look_at = None
        try:
            await self._look()
        except Unavailable as error:
            if self._available:
                log.warning("cannot look for work", reason=str(error))
            self._available = False
            self._see_nothing()
        except Exception:
            # Of ours, or due to a document that nobody thought of. Whoever stops looking runs nothing more.
            log.exception("look for work failed")
            self._see_nothing()
        else:
            self._available = True

    def _see_nothing(self) -> None:
        """A look that failed showed neither the head nor a crowd."""
        self._head_seen_at = float("-inf")
        self._found = 0

    async def _look(self) -> None:
        after, began = self._continue_after(), self._clock.monotonic()
        left: Mapping[Candidate, float] = {}
        if after is None:
            self._head_seen_at, left = began, self._left.seek()
        await self._learn_of_others()
        if self._must_learn_of_queues():
            await self._learn_of_queues()
        queues = sorted(self._queues)
        if not queues:
            self._found = self._ready.look(Window([], complete=True), from_head=True)
            return
        limit = self._window * min(self._contention.shares, MAX_WINDOWS)
        with self._busy.look():
            window = await self._jobs.candidates(queues, after=after, limit=limit)
            if left:
                self._contention.miss(self._left.see(left, window, began=began))
            self._take_in(window, after=after)
        self._on_found()
        if await self._learn_of_queues():
            self.refresh()

    def _take_in(self, window: Window, *, after: Candidate | None) -> None:
        if after is not None and self._ready.horizon != after:
            # What stood before it was forgotten meanwhile; this must not be taken for the head.
            self.refresh()
            self._found = 0
            return
        share = self._contention.share(window, busy=self._busy)
        self._shared = share is not window
        self._found = self._ready.look(share, from_head=after is None, busy=self._busy)

    def _must_learn_of_queues(self) -> bool:
        """Whether the list of queues is as old as order may not be: the store was away, or this process stood still.
        A look would pass over what is more urgent in a queue that is new since."""
        return not self._queues or self._clock.monotonic() - self._queues_seen_at >= self._poll_seconds

    async def _learn_of_queues(self) -> bool:
        """Whether there are more queues than before. Not asked before every look, nor, as a rule, while a job waits for
        it."""
        now = self._clock.monotonic()
        if not self._all_queues or now - self._queues_seen_at < self._poll_seconds / 2:
            return False
        before = set(self._queues)
        known = set(await self._jobs.known_queues())
        self._queues = known | (self._queues - before)  # and what was heard of meanwhile
        self._queues_seen_at = now
        return not self._queues <= before

    async def _learn_of_others(self) -> None:
        now = self._clock.monotonic()
        if not self._contention.is_alone and now - self._others_seen_at >= OTHERS_SECONDS:
            since = self._clock.now() - timedelta(seconds=WORKER_SILENCE_SECONDS)
            self._contention.meet(await self._jobs.workers(since=since))
            self._others_seen_at = now

    def _is_low(self) -> bool:
        return not self._ready.complete and len(self._ready) < self._few()

    def _few(self) -> int:
        """With less at hand it is time for the next look; one that found nothing new of a share is not repeated."""
        if self._shared and not self._found:
            return 1
        return max(1, self._window // REFILL // self._contention.shares)

    def _continue_after(self) -> Candidate | None:
        # As old as after the shortest pause.
        head_is_old = self._clock.monotonic() - self._head_seen_at >= self._poll_seconds * (1 - JITTER)
        # After a share: what was left to others, and is still there when that is taken, comes first.
        return None if head_is_old or self._shared else self._ready.horizon

    async def _pause(self, *, rest: float) -> None:
        if self._missed and self._ready.complete:
            self._head_seen_at = float("-inf")
            return
        if self._found and self._is_low():
            return
        if not self._is_low() and self._head_seen_at > float("-inf"):
            self._wake.clear()  # it was low while this look was under way
        often = self._listener.leaves_a_crowd_to_looks and not self._is_saturated()
        seconds = min(self._poll_seconds, CROWDED_LOOK_SECONDS) if often else self._poll_seconds
        seconds *= 1 - JITTER * self._random.random()
        # As long as looks take: under constant signals the store is still left alone half the time.
        rest, now = min(rest, seconds / 2), self._clock.monotonic()
        rested_at = now + rest
        if self._head_seen_at > float("-inf"):
            seconds = max(rest, min(seconds, self._head_seen_at + self._poll_seconds - now))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                await asyncio.sleep(max(rested_at, self._look_at or 0) - self._clock.monotonic())

    def _listen_or_not(self, group: asyncio.TaskGroup) -> None:
        self._listener.saw(self._found)
        if not self._ready.complete:
            self._listener.face_a_backlog()
        elif self._is_saturated():
            self._put_off = True  # as if there were signals: none are listened for until what is at hand is taken
        else:
            self._listener.attend(group)

    def _hear(self, signal: QueueSignal) -> None:
        if self._all_queues:
            self._queues.add(signal.queue)
        if self._is_saturated():
            # More urgent work is found by the next look at the head; one for each signal would only cost the store.
            self._put_off = True
            self._listener.look_away()
        elif not signal.candidates or not (self._contention.is_alone or self._contention.knows_others):
            self._look_for_signalled()
        else:
            self._divide(signal.candidates)

    def _divide(self, candidates: Sequence[Candidate]) -> None:
        """Take in what falls to this process, and look for the rest later, should it still wait then."""
        left = [candidate for candidate in candidates if self._contention.is_left(candidate)]
        if left:
            self._left.add(left)
        mine = [candidate for candidate in candidates if candidate not in left]
        if not mine:
            return
        if not self._left.has_before(mine) and self._ready.offer(mine):
            self._on_found()
        else:
            self._look_for_signalled()

    def _look_for_signalled(self) -> None:
        self._listener.look_away()
        if self._look_at is None:
            wait = max(self._signalled.reserve(), self._contention.hesitation(self._random))
            self._look_at = self._clock.monotonic() + wait
        self.refresh()
