"""When to hear of jobs as they are stored, through the one change stream of a process, and when not.

It wakes an idle worker at once; but a server goes through every change for each who listens. So a process listens
while it knows all that is pending and has slots for more. A backlog is found without, and what comes in a crowd is
better looked for: then the stream is closed, until there was neither for a while. Nothing depends on it: what is not
heard of is looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from random import Random

import structlog

from jobqueue.clock import Clock
from jobqueue.errors import Unavailable
from jobqueue.repository import CROWD, JobRepository, QueueSignal

BACKLOG_SECONDS = 0.1
"""With a backlog for so long, the change stream is closed."""
CROWD_SECONDS = 0.1
"""What follows a crowd is looked for, and listened for again when none was seen for so long."""
TURNS_TO_CLAIM = 3
"""Turns of the event loop until a claim of what was heard of is sent, so that the next question does not go first."""
REOPEN_SECONDS = 10.0
"""How long to do without a change stream after it broke."""

log = structlog.get_logger(__name__)


class Listener:
    """Opens and closes the change stream. After each look it is to be told what that showed."""

    def __init__(
        self,
        jobs: JobRepository,
        *,
        serves: Callable[[str], bool],
        on_signal: Callable[[QueueSignal], None],
        on_gap: Callable[[], None],
        clock: Clock,
        random: Random,
    ) -> None:
        """`on_gap` is called where signals may have been missed, so that a look is due."""
        self._jobs = jobs
        self._serves = serves
        self._on_signal = on_signal
        self._on_gap = on_gap
        self._clock = clock
        self._random = random
        self._listening: asyncio.Task[None] | None = None
        self._attentive = asyncio.Event()
        self._crowd_seen_at = float("-inf")
        self._is_crowded = False
        self._backlog_since: float | None = None
        self._refused_because: str | None = None

    @property
    def leaves_a_crowd_to_looks(self) -> bool:
        """Whether nobody listens because more is to be expected than is worth to be heard of one by one."""
        return self._listening is None and self._is_crowded

    def saw(self, found: int) -> None:
        """A look found so many jobs that were not at hand."""
        now = self._clock.monotonic()
        if found >= CROWD and self._jobs.features.change_streams:
            self._crowd_seen_at = now
        # Once for each look: were it over between two questions, nobody would listen, and nobody look again soon.
        self._is_crowded = now - self._crowd_seen_at < CROWD_SECONDS

    def attend(self, group: asyncio.TaskGroup) -> None:
        """All that is pending is at hand, and there are slots for more: hear of what comes."""
        self._backlog_since = None
        self._attentive.set()
        if self._listening is None and self._jobs.features.change_streams and not self._is_crowded:
            self._listening = group.create_task(self._listen(), name="signals")

    def look_away(self) -> None:
        """Until `attend` is called again, the next signal could tell nothing new."""
        self._attentive.clear()

    def face_a_backlog(self) -> None:
        """There is more than is at hand."""
        now = self._clock.monotonic()
        if self._backlog_since is None:
            self._backlog_since = now
        elif self._listening is not None and now - self._backlog_since >= BACKLOG_SECONDS:
            self._listening.cancel()
            self._listening = None

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear_all()
                break
            except TimeoutError:  # what was signalled meanwhile is old news when there is time for it
                self._listening = None
                return
            except Unavailable as error:
                self._tell(str(error))
            except Exception:
                log.exception("listening failed; polling goes on")
            self._on_gap()
            await asyncio.sleep(REOPEN_SECONDS * (1 + self._random.random()))
        # A crowd, which looks tell of, and of what follows it.
        self._listening = None
        self._crowd_seen_at = self._clock.monotonic()
        self._on_gap()

    def _opened(self) -> None:
        self._refused_because = None
        self._on_gap()

    def _tell(self, reason: str) -> None:
        """Once, where it is refused again and again: without the right to it that is for good."""
        if reason != self._refused_because:
            self._refused_because = reason
            log.info("no change stream; polling goes on", reason=reason)

    async def _hear_all(self) -> None:
        """Returns when so much came at once that it is better looked for. Raises `TimeoutError` after some time with
        enough to do, and `Unavailable`."""
        async with aclosing(self._jobs.signals(on_open=self._opened)) as signals:
            async for signal in signals:
                if self._serves(signal.queue):
                    self._on_signal(signal)
                    for _ in range(TURNS_TO_CLAIM):
                        await asyncio.sleep(0)
                # The next one after the look that this one is followed by: it could tell nothing new before.
                with suppress(TimeoutError):
                    async with asyncio.timeout(BACKLOG_SECONDS):
                        await self._attentive.wait()
                if not self._attentive.is_set():  # if it is, that look ended in this very moment
                    raise TimeoutError
