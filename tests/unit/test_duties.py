"""What all duties of maintenance have in common."""

from __future__ import annotations

import asyncio
from random import Random

from jobqueue.errors import Unavailable
from jobqueue.maintenance import Duty

PATIENCE = 30


class Failing(Duty):
    """Fails in several ways, and then does its work."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(seconds=0.001, random=Random(1))
        self._errors = list(errors)
        self.done = asyncio.Event()

    async def step(self) -> bool:
        if self._errors:
            raise self._errors.pop()
        self.done.set()
        return False


async def test_a_step_that_fails_is_not_the_last() -> None:
    duty = Failing(Unavailable("away"), TypeError("unhashable type: 'dict'"), OverflowError())
    running = asyncio.create_task(duty.run())

    async with asyncio.timeout(PATIENCE):
        await duty.done.wait()

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
