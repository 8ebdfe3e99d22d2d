"""The peers on Redis. Imports of the libraries are inside, since no environment has them all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, ClassVar

from benchmarks.peers.peer import Payload, Peer, Way, concurrently, in_bulk, in_threads
from benchmarks.witness import record

JOB = "noop"


class Saq(Peer):
    """No call for many; the bound of its client on concurrent calls, 20, is also tried at 100."""

    environment, packages = "saq", ("saq", "redis")

    async def open(self) -> None:
        from saq import Queue

        self.queue = Queue.from_url(self.url)
        self.wide = Queue.from_url(self.url, max_concurrent_ops=100)
        await self.queue.connect()
        await self.wide.connect()

    async def close(self) -> None:
        await self.queue.disconnect()
        await self.wide.disconnect()

    async def one(self, payload: Payload) -> None:
        await self.queue.enqueue(JOB, payload=payload)

    def ways(self) -> Mapping[str, Way]:
        async def wide(payload: Payload) -> None:
            await self.wide.enqueue(JOB, payload=payload)

        return {**super().ways(), "the same, max_concurrent_ops=100": concurrently(wide)}

    async def unfinished(self) -> int | None:
        found: int = await self.queue.count("incomplete")
        return found

    def work(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        from saq import Queue, Worker

        async def noop(_context: Any, *, payload: Payload) -> Any:
            return self.do(payload)

        queue = Queue.from_url(self.url)
        await queue.connect()
        try:
            await Worker(queue, functions=[(JOB, noop)], concurrency=self.concurrency).start()
        finally:
            await queue.disconnect()


class Arq(Peer):
    """Looks for work each half second by default, which sets its pick-up and bounds its rate; here each 10 ms."""

    environment, packages, polls = "arq", ("arq", "redis"), True
    poll_seconds = 0.01

    async def open(self) -> None:
        from arq import create_pool
        from arq.connections import RedisSettings

        self.pool = await create_pool(RedisSettings.from_dsn(self.url))

    async def close(self) -> None:
        await self.pool.aclose()

    async def one(self, payload: Payload) -> None:
        await self.pool.enqueue_job(JOB, payload)

    async def unfinished(self) -> int | None:
        found: int = await self.pool.zcard("arq:queue")
        return found

    def work(self) -> None:
        from arq.connections import RedisSettings
        from arq.worker import Worker, func

        async def noop(_context: Any, payload: Payload) -> Any:
            return self.do(payload)

        asyncio.set_event_loop(asyncio.new_event_loop())
        settings = RedisSettings.from_dsn(self.url)
        functions = [func(noop, name=JOB)]
        Worker(functions, redis_settings=settings, max_jobs=self.concurrency, poll_delay=self.poll_seconds).run()


class Taskiq(Peer):
    """On a stream, with acknowledgement; uvloop in the worker, as its command does. Keeps results when asked to."""

    packages = ("taskiq", "taskiq-redis", "redis")

    def _broker(self) -> Any:
        from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

        broker = RedisStreamBroker(self.url)
        if self.with_result:
            broker = broker.with_result_backend(RedisAsyncResultBackend(self.url))

        @broker.task(task_name=JOB)
        async def noop(payload: Payload) -> Any:
            return self.do(payload)

        self.noop = noop
        return broker

    async def open(self) -> None:
        self.broker = self._broker()
        await self.broker.startup()

    async def close(self) -> None:
        await self.broker.shutdown()

    async def one(self, payload: Payload) -> None:
        await self.noop.kiq(payload)

    async def unfinished(self) -> int | None:
        from redis.asyncio import Redis

        async with Redis(connection_pool=self.broker.connection_pool) as redis:
            found: int = (await redis.xpending("taskiq", "taskiq"))["pending"]
        return found

    def work(self) -> None:
        from taskiq.cli.worker.args import WorkerArgs
        from taskiq.cli.worker.run import start_listen  # what each process of its command runs

        arguments = WorkerArgs(
            broker=self._broker(), modules=[], max_async_tasks=self.concurrency, configure_logging=False
        )
        start_listen(arguments)


class Dramatiq(Peer):
    """Eight threads, its default for one process, or twice as many; looks at Redis with a back-off."""

    packages, polls = ("dramatiq", "redis"), True
    at_once, unit = (8, 16), "threads"

    def _broker(self) -> Any:
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker

        broker = RedisBroker(url=self.url)
        if self.with_result:
            from dramatiq.results import Results
            from dramatiq.results.backends import RedisBackend

            broker.add_middleware(Results(backend=RedisBackend(url=self.url), store_results=True))
        dramatiq.set_broker(broker)
        self.actor = dramatiq.actor(self.do, actor_name=JOB)
        return broker

    async def open(self) -> None:
        self.broker = self._broker()

    async def close(self) -> None:
        self.broker.close()

    async def one(self, payload: Payload) -> None:
        self.actor.send(payload)

    def ways(self) -> Mapping[str, Way]:
        return {"group of 100": in_bulk(self._many, size=100), "8 threads": in_threads(self.actor.send)}

    def _many(self, payloads: Sequence[Payload]) -> None:
        import dramatiq

        dramatiq.group([self.actor.message(payload) for payload in payloads]).run()

    async def unfinished(self) -> int | None:
        found: int = self.broker.do_qsize("default")
        return found

    def work(self) -> None:
        import dramatiq

        worker = dramatiq.Worker(self._broker(), worker_threads=self.concurrency)
        worker.start()
        wait_for_sigterm()
        worker.stop(timeout=5000)


class Celery(Peer):
    """Eight threads in one process; its default, a child process for each core, is no single process. Acknowledges
    before the run, as it does by default: a crash of the worker loses what runs."""

    packages = ("celery", "kombu", "redis")
    unit, acknowledges = "threads", False
    at_once: ClassVar[Sequence[int]] = (8, 16)
    pool = "threads"

    def _app(self) -> Any:
        from celery import Celery as Application

        app = Application("bench", broker=self.url, backend=self.url if self.with_result else None)

        @app.task(name=JOB)
        def noop(payload: Payload) -> Any:
            return self.do(payload)

        self.task = noop
        return app

    async def open(self) -> None:
        self.app = self._app()

    async def close(self) -> None:
        self.app.close()

    async def one(self, payload: Payload) -> None:
        self.task.delay(payload)

    def ways(self) -> Mapping[str, Way]:
        return {"group of 100": in_bulk(self._many, size=100), "8 threads": in_threads(self.task.delay)}

    def _many(self, payloads: Sequence[Payload]) -> None:
        from celery import group

        group([self.task.s(payload) for payload in payloads]).apply_async()

    async def unfinished(self) -> int | None:
        with self.app.connection_for_read() as connection:
            redis = connection.default_channel.client
            found: int = redis.hlen("unacked") + redis.llen("celery")
        return found

    def work(self) -> None:
        os.environ["C_FORCE_ROOT"] = "1"
        options = [f"--pool={self.pool}", f"--concurrency={self.concurrency}", "--loglevel=WARNING"]
        self._app().worker_main(["worker", *options])


class CeleryPrefork(Celery):
    """Its default: a child process for each core."""

    pool, at_once, unit = "prefork", (os.cpu_count() or 1,), "child processes"


def rq_job(payload: Payload) -> None:
    """The job of rq, which finds it by this name."""
    record(payload)


def rq_job_with_result(payload: Payload) -> Payload:
    """The same with a result of its own."""
    record(payload)
    return {"n": payload["n"]}


class Rq(Peer):
    """Its SimpleWorker, one job at a time in the process itself; its default forks for each job."""

    packages = ("rq", "redis")
    at_once, unit = (1,), "job at a time"

    async def open(self) -> None:
        import redis
        import rq

        self.redis = redis.Redis.from_url(self.url)
        self.queue = rq.Queue(connection=self.redis)
        self.job = f"{__name__}.{'rq_job_with_result' if self.with_result else 'rq_job'}"

    async def close(self) -> None:
        self.redis.close()

    async def one(self, payload: Payload) -> None:
        self.queue.enqueue(self.job, payload)

    def ways(self) -> Mapping[str, Way]:
        return {f"enqueue_many of {size}": in_bulk(self._many, size=size) for size in (100, 1000)}

    def _many(self, payloads: Sequence[Payload]) -> None:
        self.queue.enqueue_many([self.queue.prepare_data(self.job, (payload,)) for payload in payloads])

    async def unfinished(self) -> int | None:
        found: int = self.queue.count + self.queue.started_job_registry.get_job_count(cleanup=False)
        return found

    def work(self) -> None:
        import redis
        import rq

        client = redis.Redis.from_url(self.url)
        rq.SimpleWorker([rq.Queue(connection=client)], connection=client).work(logging_level="WARNING")


class Huey(Peer):
    """One thread, its default, or a few. Takes a job off the list and forgets it: a crash loses what runs."""

    packages = ("huey", "redis")
    at_once, unit, acknowledges = (1, 4), "threads", False

    def _huey(self) -> Any:
        from huey import RedisHuey

        huey = RedisHuey("bench", url=self.url)
        self.task = huey.task(name=JOB)(self.do)
        return huey

    async def open(self) -> None:
        self.huey = self._huey()

    async def one(self, payload: Payload) -> None:
        self.task(payload)

    def ways(self) -> Mapping[str, Way]:
        return {"map of 100": in_bulk(self._many, size=100), "8 threads": in_threads(self.task)}

    def _many(self, payloads: Sequence[Payload]) -> None:
        self.task.map(payloads)

    def work(self) -> None:
        self._huey().create_consumer(workers=self.concurrency).run()


def wait_for_sigterm() -> None:
    """Return when the process is asked to stop."""
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)

    signal.signal(signal.SIGTERM, stop)
    while not stopped:
        signal.pause()
