"""The peers on PostgreSQL, with as many connections each. Imports of the libraries are inside."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.peer import Payload, Peer, Way, in_bulk

JOB = "noop"
LEAST_CONNECTIONS = 4
MOST_CONNECTIONS = 20


class Procrastinate(Peer):
    """Fetches job by job; keeps no results."""

    packages, backend, keeps_results = ("procrastinate", "psycopg"), "postgres", False

    def _app(self) -> Any:
        from procrastinate import App, PsycopgConnector

        connector = PsycopgConnector(conninfo=self.url, min_size=LEAST_CONNECTIONS, max_size=MOST_CONNECTIONS)
        app = App(connector=connector)

        @app.task(name=JOB)
        async def noop(payload: Payload) -> None:
            self.do(payload)

        self.noop = noop
        return app

    async def prepare(self) -> None:
        app = self._app()
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        self.app = self._app()
        await self.app.open_async()

    async def close(self) -> None:
        await self.app.close_async()

    async def one(self, payload: Payload) -> None:
        await self.noop.defer_async(payload=payload)

    def ways(self) -> Mapping[str, Way]:
        return {f"batch_defer of {size}": in_bulk(self._many, size=size) for size in (100, 1000)}

    async def _many(self, payloads: Sequence[Payload]) -> None:
        await self.noop.batch_defer_async(*({"payload": payload} for payload in payloads))

    async def unfinished(self) -> int | None:
        query = "SELECT count(*) AS n FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        found: int = (await self.app.connector.execute_query_one_async(query))["n"]
        return found

    def work(self) -> None:
        async def main() -> None:
            app = self._app()
            async with app.open_async():
                await app.run_worker_async(concurrency=self.concurrency)

        asyncio.run(main())


class Oban(Peer):
    """Acknowledges in batches, after the run; uvloop in the worker, as its command does."""

    environment, packages, backend = "oban", ("oban", "psycopg"), "postgres"

    async def _pool(self) -> Any:
        import oban

        return await oban.Oban.create_pool(self.url, min_size=LEAST_CONNECTIONS, max_size=MOST_CONNECTIONS)

    def _worker(self) -> Any:
        from oban import Record, worker

        do, with_result = self.do, self.with_result

        @worker(queue="default")
        class NoOp:
            async def process(self, job: Any) -> Any:
                result = do(job.args)
                return Record(result) if with_result else None

        return NoOp

    async def prepare(self) -> None:
        from oban.schema import install

        pool = await self._pool()
        await install(pool)
        await pool.close()

    async def open(self) -> None:
        import oban

        self.noop, self.pool = self._worker(), await self._pool()
        self.oban = oban.Oban(pool=self.pool)
        await self.oban.start()

    async def close(self) -> None:
        await self.oban.stop()
        await self.pool.close()

    async def one(self, payload: Payload) -> None:
        await self.oban.enqueue(self.noop.new(payload))

    def ways(self) -> Mapping[str, Way]:
        return {f"enqueue_many of {size}": in_bulk(self._many, size=size) for size in (100, 1000)}

    async def _many(self, payloads: Sequence[Payload]) -> None:
        await self.oban.enqueue_many([self.noop.new(payload) for payload in payloads])

    async def unfinished(self) -> int | None:
        async with self.pool.connection() as connection:
            cursor = await connection.execute("SELECT count(*) FROM oban_jobs WHERE state <> 'completed'")
            found: int = (await cursor.fetchone())[0]
        return found

    def work(self) -> None:
        import uvloop

        uvloop.run(self._work())

    async def _work(self) -> None:
        import oban

        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        self._worker()
        pool = await self._pool()
        async with oban.Oban(pool=pool, queues={"default": self.concurrency}):
            await stop.wait()
        await pool.close()
