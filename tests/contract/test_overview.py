"""Looking at many jobs at once: counts by state, jobs by their ids, which of them changed."""

from __future__ import annotations

from collections import Counter

from bench import NOW, SECOND, Bench

from jobqueue.job import EPOCH, Progress, Status
from jobqueue.repository import Revision


async def test_the_counts_of_an_empty_store_name_every_state(bench: Bench) -> None:
    assert await bench.jobs.count_by_status() == dict.fromkeys(Status, 0)


async def test_the_counts_add_up_to_the_number_of_jobs(bench: Bench) -> None:
    wanted = Counter({status: number for number, status in enumerate(Status, start=1)})
    for status in wanted.elements():
        await bench.in_status(status)

    counts = await bench.jobs.count_by_status()

    assert counts == wanted
    assert sum(counts.values()) == await bench.raw.count_documents({})


async def test_a_job_made_by_hand_is_counted_in_the_state_that_it_is_shown_in(bench: Bench) -> None:
    await bench.put(_id="none")
    await bench.put(_id="null", status=None)
    await bench.put(_id="unknown", status="stuck")

    counts = await bench.jobs.count_by_status()

    shown = Counter([(await bench.jobs.get(job_id)).status for job_id in ("none", "null", "unknown")])
    assert counts == Counter(dict.fromkeys(Status, 0)) | shown


async def test_many_jobs_come_by_their_ids_and_missing_ones_are_left_out(bench: Bench) -> None:
    first, second, _ = await bench.add_many(3)

    found = await bench.jobs.get_many([first.id, "nobody", second.id])

    assert found == {first.id: first, second.id: second}


async def test_looking_for_no_jobs_finds_none(bench: Bench) -> None:
    await bench.add()

    assert await bench.jobs.get_many([]) == {}
    assert await bench.jobs.revisions([]) == {}


async def test_a_move_and_progress_make_another_revision_and_a_heartbeat_does_not(bench: Bench) -> None:
    job = await bench.add()
    seen = [await bench.jobs.revisions([job.id])]

    bench.clock.move(SECOND)
    (claim,) = await bench.claim(job)
    seen.append(await bench.jobs.revisions([job.id]))
    bench.clock.move(SECOND)
    await bench.change_lease(claim, expiresAt=bench.clock.now() + 99 * SECOND)
    seen.append(await bench.jobs.revisions([job.id]))
    await bench.jobs.report_progress(claim, Progress(percent=50), at=bench.clock.now())
    seen.append(await bench.jobs.revisions([job.id]))

    assert [each[job.id] for each in seen] == [
        Revision(Status.PENDING, NOW),
        Revision(Status.PROCESSING, NOW + SECOND),
        Revision(Status.PROCESSING, NOW + SECOND),
        Revision(Status.PROCESSING, NOW + 2 * SECOND),
    ]


async def test_the_revision_of_a_job_without_times_is_that_of_a_very_old_one(bench: Bench) -> None:
    await bench.put(_id="by hand", status="pending")

    assert await bench.jobs.revisions(["by hand", "nobody"]) == {"by hand": Revision(Status.PENDING, EPOCH)}
