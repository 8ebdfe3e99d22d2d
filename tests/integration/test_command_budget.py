"""What jobs cost the database, in commands. Clocks are noisy; this fails when the engine begins to send crumbs.

Counted is by its kind what is about the jobs that were brought, and all together whatever it is for, but for what time
alone costs: what an idle process sends is held by `test_idle.py`. The bounds are about twice what was seen; a claim may
come in two halves, and a busy machine gives time for a few looks more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
from commands import LISTENER, Command
from pydantic import SecretStr

from jobqueue.app import Engine
from jobqueue.contention import LEFT_SECONDS
from jobqueue.errors import QueueFull
from jobqueue.job import Job, JsonValue, Status
from jobqueue.mongo import fresh
from jobqueue.mongo.wakeups import QUESTION_SECONDS, QUESTIONS_AT_ONCE, SIGNAL_SECONDS, SIGNALS_AT_ONCE
from jobqueue.poller import JITTER
from jobqueue.service import JobService, NewJob
from jobqueue.settings import Settings
from jobqueue.tasks import Registry

JOBS = 1_000
SLOTS = 200
AT_LEAST = JOBS // SLOTS
"""Claims that so many slots need."""

CLAIMS = 3 * AT_LEAST
OUTCOMES = 2 * AT_LEAST
COMMANDS = 80
"""The most for so many jobs; 5 to 10, 3 to 6 and 17 to 48 were seen."""

IDLE = 4.2
"""Commands that each second costs with nothing to do."""


class Enqueued:
    """An engine whose task says when so many jobs have run."""

    def __init__(self, expected: int) -> None:
        self.registry = Registry()
        self.registry.task("noop")(self._run)
        self.registry.task("number")(self._number)
        self.all_ran = asyncio.Event()
        self.ran: asyncio.Queue[None] = asyncio.Queue()
        self._left = expected

    async def _number(self) -> JsonValue:
        await self._run()
        return {"left": self._left}

    async def _run(self) -> None:
        self.ran.put_nowait(None)
        self._left -= 1
        if not self._left:
            self.all_ran.set()


class Budget:
    """What was sent, sorted by what it is for."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.seconds = commands[-1].at - commands[0].at
        self.polls = self.seconds / (1 - JITTER)  # at the shortest interval, of which the settings' is a second
        self.for_jobs = len(commands) - IDLE * self.seconds
        jobs = [command for command in commands if command.collection == "jobs"]
        updates = [command for command in jobs if command.name == "update"]
        self.inserts = sum(command.name == "insert" for command in jobs)
        self.claims = sum("status" in command.filters[0] for command in updates)
        self.outcomes = sum("lease.id" in command.filters[0] for command in updates)
        self.ends = sum("lease.id" in query for command in updates for query in command.filters)
        self.reads = sum(command.name == "find" and "lease.id" in command.filters[0] for command in jobs)
        self.signals = sum(command.name == "update" and command.collection == "signals" for command in commands)
        self.further_answers = sum(
            command.name == "getMore" and command.body["collection"] == "jobs" for command in commands
        )
        self.looks = sum(command.name == "find" and command.filters[0].get("status") == "pending" for command in jobs)
        self.other_writes = len(updates) - self.claims - self.outcomes

    def __repr__(self) -> str:
        return str(vars(self))


@pytest.fixture
def settings(server_uri: str, database_name: str) -> Settings:
    return Settings(
        mongodb_uri=SecretStr(server_uri), database=database_name, workers=SLOTS, queue_size=2 * JOBS, lease_seconds=600
    )


@pytest.fixture(autouse=True)
def _what_is_known_of_a_job_is_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need a second for what is counted here."""
    monkeypatch.setattr(fresh, "BELIEVED_SECONDS", 600.0)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def start(settings: Settings, stack: AsyncExitStack, enqueued: Enqueued, *, workers: bool = True) -> Engine:
    assert settings.mongodb_uri is not None
    uri = settings.mongodb_uri.get_secret_value()
    return await Engine.start(settings, stack, registry=enqueued.registry, mongodb_uri=uri, workers=workers)


async def finish(engine: Engine, enqueued: Enqueued) -> None:
    """Until every outcome is acknowledged."""
    await asyncio.wait_for(enqueued.all_ran.wait(), 60)
    await engine.drain(30)


async def one_by_one(service: JobService) -> None:
    await asyncio.gather(*(service.enqueue(NewJob(type="noop")) for _ in range(JOBS)))


async def test_a_thousand_jobs_in_bulk_cost_tens_of_commands(settings: Settings, stack: AsyncExitStack) -> None:
    enqueued = Enqueued(JOBS)
    engine = await start(settings, stack, enqueued)

    with LISTENER.listening() as commands:
        answers = await engine.service.enqueue_many([NewJob(type="noop") for _ in range(JOBS)])
        await finish(engine, enqueued)

    budget = Budget(commands)
    assert all(isinstance(answer, Job) for answer in answers)
    assert budget.inserts == 2, budget  # the first of a burst go ahead of the rest
    assert AT_LEAST <= budget.claims <= CLAIMS, budget
    assert budget.reads <= budget.claims, budget  # none of those that were claimed within a second
    assert budget.further_answers == 0, budget  # each read fits one answer, however many were claimed
    assert budget.outcomes <= OUTCOMES, budget
    assert budget.other_writes == 0, budget
    assert budget.looks <= 4 + budget.polls, budget
    assert budget.for_jobs <= COMMANDS, budget


async def test_a_thousand_results_cost_tens_of_statements(settings: Settings, stack: AsyncExitStack) -> None:
    enqueued = Enqueued(JOBS)
    engine = await start(settings, stack, enqueued)

    with LISTENER.listening() as commands:
        await engine.service.enqueue_many([NewJob(type="number") for _ in range(JOBS)])
        await finish(engine, enqueued)

    budget = Budget(commands)
    assert budget.outcomes <= OUTCOMES, budget
    assert budget.ends <= 4 * AT_LEAST, budget
    assert budget.looks <= 4 + budget.polls, budget
    assert budget.for_jobs <= COMMANDS, budget


async def test_a_thousand_callers_at_once_share_a_few_inserts(settings: Settings, stack: AsyncExitStack) -> None:
    enqueued = Enqueued(JOBS)
    engine = await start(settings, stack, enqueued)
    await engine.service.queues()

    with LISTENER.listening() as commands:
        await one_by_one(engine.service)
        await finish(engine, enqueued)

    budget = Budget(commands)
    assert budget.inserts <= 4, budget
    assert budget.claims <= CLAIMS, budget
    assert budget.outcomes <= OUTCOMES, budget
    assert budget.looks <= 4 + budget.polls, budget
    assert budget.for_jobs <= COMMANDS, budget


async def test_one_job_alone_costs_one_insert_one_claim_and_one_outcome(
    settings: Settings, stack: AsyncExitStack
) -> None:
    enqueued = Enqueued(1)
    engine = await start(settings, stack, enqueued)

    with LISTENER.listening() as commands:
        await engine.service.enqueue(NewJob(type="noop"))
        await finish(engine, enqueued)

    budget = Budget(commands)
    assert (budget.inserts, budget.claims, budget.outcomes) == (1, 1, 1), budget
    assert budget.reads == 0, budget  # the claim itself answers with the document, or vouches for what was stored
    assert budget.signals <= 1, budget  # the queue's document, before its first job
    assert budget.looks <= 1 + budget.polls, budget
    assert budget.other_writes == 0, budget
    assert budget.for_jobs <= 40, budget  # 20 to 24 with what begins and ends the process


async def test_a_job_of_another_process_costs_one_claim_and_nothing_to_find_it(
    settings: Settings, stack: AsyncExitStack
) -> None:
    enqueued, patient = Enqueued(3), settings.model_copy(update={"poll_seconds": 600.0})
    worker = await start(patient, stack, enqueued)
    api = await start(settings, stack, enqueued, workers=False)
    for _ in range(2):  # the first may be found by the look at the start, the second only by who listens
        job = await api.service.enqueue(NewJob(type="noop"))
        assert (await api.service.wait(job.id, seconds=60)).status is Status.COMPLETED

    with LISTENER.listening() as commands:
        await api.service.enqueue(NewJob(type="noop"))
        await finish(worker, enqueued)

    budget = Budget(commands)
    assert (budget.claims, budget.reads, budget.looks, budget.signals) == (1, 0, 0, 0), budget
    assert budget.for_jobs <= 18, budget  # 8 or 9


async def test_a_look_at_a_job_that_is_not_finished_is_one_read(settings: Settings, stack: AsyncExitStack) -> None:
    engine = await start(settings, stack, Enqueued(1))
    job = await engine.service.enqueue(NewJob(type="noop", delay_seconds=600))

    with LISTENER.listening() as commands:
        await engine.service.wait(job.id, seconds=0)

    reads = [command for command in commands if command.name == "find" and command.collection == "jobs"]
    assert sum("_id" in read.filters[0] for read in reads) == 1, reads


async def test_several_idle_workers_do_not_all_claim_what_they_hear_of(
    settings: Settings, stack: AsyncExitStack
) -> None:
    workers = 4
    enqueued = Enqueued(JOBS)
    for _ in range(workers):
        await start(settings, stack, enqueued)
    api = await start(settings, stack, enqueued, workers=False)

    async def run_one_after_the_other(count: int) -> None:
        for _ in range(count):
            await api.service.enqueue(NewJob(type="noop"))
            await asyncio.wait_for(enqueued.ran.get(), 60)

    await run_one_after_the_other(20)  # until they have met
    with LISTENER.listening() as commands:
        await run_one_after_the_other(JOBS // 10)

    # One each, as a rule; but each of them looks again and again for what it left to others, and may find it there.
    budget = Budget(commands)
    assert JOBS // 10 <= budget.claims <= JOBS // 10 + budget.looks, budget
    assert budget.looks <= workers * (1 + budget.seconds / LEFT_SECONDS), budget


async def test_what_waits_in_many_queues_is_one_question(settings: Settings, stack: AsyncExitStack) -> None:
    limited = settings.model_copy(update={"max_pending_per_queue": 2})
    engine = await start(limited, stack, Enqueued(0), workers=False)
    new = [NewJob(queue=f"queue-{number}") for number in range(100)]

    with LISTENER.listening() as commands:
        answers = await engine.service.enqueue_many(new)
    with pytest.raises(QueueFull, match="in the queue 'queue-99'"):
        await engine.service.enqueue_many([*new, *new[-1:]])

    assert all(isinstance(answer, Job) for answer in answers)
    counts = [command for command in commands if command.name == "aggregate" and command.collection == "jobs"]
    assert len(counts) == 3  # what is pending and what is scheduled, of all; then in each queue


async def test_a_process_without_workers_signals_nothing_that_it_stores(
    settings: Settings, stack: AsyncExitStack
) -> None:
    engine = await start(settings, stack, Enqueued(0), workers=False)

    with LISTENER.listening() as commands:
        for _ in range(5):
            await engine.service.enqueue_many([NewJob(type="noop")] * 3)
        await engine.drain(1)

    assert Budget(commands).signals == 1  # the queue's document, before its first job


async def test_a_process_that_has_no_slot_for_what_it_stores_signals_in_step(
    settings: Settings, stack: AsyncExitStack
) -> None:
    engine = await start(settings.model_copy(update={"queues": ("other",)}), stack, Enqueued(0))
    began = time.monotonic()

    with LISTENER.listening() as commands:
        for _ in range(10 * SIGNALS_AT_ONCE):
            await engine.service.enqueue_many([NewJob(type="noop")] * 3)
        await engine.drain(1)
        seconds = time.monotonic() - began

    budget = Budget(commands)
    assert budget.inserts == 10 * SIGNALS_AT_ONCE, budget
    # And the queue's document, before its first job.
    assert 1 < budget.signals <= SIGNALS_AT_ONCE + seconds / SIGNAL_SECONDS + 2, budget


async def test_a_worker_that_hears_of_job_after_job_asks_in_step(settings: Settings, stack: AsyncExitStack) -> None:
    enqueued = Enqueued(JOBS // 10)
    worker = await start(settings.model_copy(update={"poll_seconds": 600.0}), stack, enqueued)
    api = await start(settings, stack, enqueued, workers=False)
    job = await api.service.enqueue(NewJob(type="noop"))
    await api.service.wait(job.id, seconds=60)
    began = time.monotonic()

    with LISTENER.listening() as commands:
        for _ in range(JOBS // 10 - 1):
            await api.service.enqueue(NewJob(type="noop"))
        await finish(worker, enqueued)
        seconds = time.monotonic() - began

    questions = sum(command.name == "getMore" for command in commands)
    assert 0 < questions <= QUESTIONS_AT_ONCE + seconds / QUESTION_SECONDS + 2, Budget(commands)


async def test_many_looks_at_the_same_moment_share_a_few_reads(settings: Settings, stack: AsyncExitStack) -> None:
    engine = await start(settings, stack, Enqueued(1))
    answers = await engine.service.enqueue_many([NewJob(type="noop", delay_seconds=600) for _ in range(320)])
    jobs = [answer for answer in answers if isinstance(answer, Job)]

    with LISTENER.listening() as commands:
        await asyncio.gather(*(engine.service.get(job.id) for job in jobs))

    reads = [command for command in commands if command.name == "find" and command.collection == "jobs"]
    assert sum("_id" in read.filters[0] for read in reads) == 10, reads  # 32 in each
