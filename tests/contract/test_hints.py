"""What names jobs by their ids names the index of ids too: a plan cached for another clause may read a whole state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bench import BOOM, LEASE, NOW, Bench
from bson import Int64
from commands import LISTENER, Command

from jobqueue.job import LogLine, Status

FILTERS = {"find": "filter", "findAndModify": "query"}


def by_id(commands: list[Command]) -> Iterator[tuple[dict[str, Any], Any]]:
    """The filters on `_id` and more, and their hints."""
    for one in commands:
        statements = [*one.body.get("updates", []), *one.body.get("deletes", [])] or [one.body]
        for statement in statements:
            query = statement.get("q") or statement.get(FILTERS.get(one.name, ""), {})
            if "_id" in query and len(query) > 1 and one.collection in ("jobs", "job_logs"):
                yield dict(query), statement.get("hint")


@pytest.mark.parametrize("backend", ["embedded-as-mongodb", "mongodb"], indirect=True)
async def test_jobs_that_are_named_by_id_are_looked_up_by_id(bench: Bench) -> None:
    odd = {"queue": "default", "status": "pending", "runAt": NOW, "priority": "high", "seq": Int64(1)}
    await bench.put(_id="odd", **odd)
    await bench.put(_id=101, idempotencyKey="key")
    with LISTENER.listening() as commands:
        first, second, again, left, lost = await bench.claim(*await bench.add_many(5))
        single = await bench.running()
        await bench.jobs.complete_many([(first, 1), (second, 2)], at=NOW)
        await bench.jobs.retry(again, BOOM, run_at=NOW, at=NOW)
        await bench.jobs.promote(now=NOW, limit=10)
        await bench.jobs.fail(left, BOOM, at=NOW)
        await bench.jobs.redrive(left.job_id, at=NOW)
        await bench.jobs.cancel(left.job_id, at=NOW)
        await bench.jobs.cancel(single.job_id, at=NOW)
        await bench.jobs.append_logs(single.job_id, [LogLine(at=NOW, attempt=1, level="info", message="hello")])
        await bench.expire(lost)
        await bench.jobs.rescue(cutoff=NOW, at=NOW, limit=10)
        await bench.jobs.release_orphans([single.lease_id], [], at=NOW)
        await bench.jobs.delete(first.job_id)
        await bench.jobs.prune(Status.COMPLETED, finished_before=NOW + LEASE, limit=10)
        await bench.candidate_ids()
        await bench.jobs.adopt(at=NOW, limit=10)

    looked_up = list(by_id(commands))
    assert [query for query, hint in looked_up if hint != "_id_"] == []
    assert len(looked_up) > 15
