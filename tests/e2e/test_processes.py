"""Several processes on one port: all of them serve, and none of their ends loses a job or leaves anything behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from databases import DatabaseProcess
from observers import WITNESSED, Client, Witness, eventually
from processes import ServiceProcess, end_of, run_command
from scraped import families_in

from jobqueue.assignment import Assignment
from jobqueue.child import Supervised
from jobqueue.data_dir import Process
from jobqueue.fleet import PROGRAM
from jobqueue.loop import EXIT_AT_ONCE
from jobqueue.settings import load_settings

Settings = Callable[..., dict[str, str]]
TEXT = "text/plain"


class Processes(ServiceProcess):
    """A supervisor and its processes, all of them up once this is started."""

    async def is_up(self) -> None:
        await super().is_up()
        await self.wait_for_event("processes started", seconds=60)

    def living(self) -> dict[int, int]:
        """The ids of the processes by their numbers, as they said when they started."""
        started = [event for event in self.events if event.get("event") == "started"]
        return {event["process"]: int(event["worker_id"].split(":")[1]) for event in started}

    async def is_back(self, number: int, *, after: int) -> int:
        """The id of the process that took the place of this one."""

        async def replaced() -> bool:
            return self.living()[number] != after

        await eventually(replaced, seconds=60, what=f"process {number} to be started again")
        return self.living()[number]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, which is empty again when the test is over. Its name is short, as those of sockets
    have to be."""
    with TemporaryDirectory() as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


async def gone(pids: Iterable[int], *, seconds: float) -> None:
    async def all_gone() -> bool:
        return not any(Process.of(pid) for pid in pids)

    await eventually(all_gone, seconds=seconds, what="the processes to end")


async def post_by_new_connections(url: str, count: int, **job: object) -> list[str]:
    """One job for each connection; the kernel spreads the connections over the processes."""
    ids = []
    for _ in range(count):
        async with aiohttp.ClientSession() as http:
            status, created = await Client(http, url).post("/jobs", job)
            assert status == 201, created
            ids.append(created["id"])
    return ids


async def enqueued(url: str) -> Counter[str]:
    """How many jobs each process says that it enqueued, whichever of them is asked."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics", headers={"Accept": TEXT}) as answer:
        assert answer.status == 200
        return Counter(
            {
                sample.labels["process"]: int(sample.value)
                for family in families_in(await answer.text(), answer.headers["Content-Type"])
                for sample in family.samples
                if sample.name == "jobqueue_jobs_enqueued_total"
            }
        )


async def test_all_processes_serve_and_work_and_each_scrape_shows_all_of_them(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    async with Processes("serve", "--processes", "2", "--tasks", WITNESSED, env=settings_for(WORKERS="4")) as service:
        client = Client(http, service.url)

        ids = await post_by_new_connections(service.url, 32, type="work", payload={"seconds": 0.3})
        for job_id in ids:
            await client.get(f"/jobs/{job_id}?wait=30")

        pids = set(service.living().values())
        _, rows = await client.get("/workers")
        assert {(row["pid"], row["slots"]) for row in rows} == {(pid, 4) for pid in pids}
        assert set().union(*witness.pids().values()) == pids
        assert service.pid not in pids

        async def all_scrapes_show_both() -> bool:
            scrapes = [await enqueued(service.url) for _ in range(8)]
            shown = scrapes[0].keys() == {"1", "2"} and scrapes[0].total() == len(ids)
            return shown and scrapes.count(scrapes[0]) == len(scrapes)

        # Whoever does not answer the other within a second is left out.
        await eventually(all_scrapes_show_both, seconds=30, what="each scrape to show what both have counted")
        assert "\n".join(service.output).count("is ready, in 2 processes.") == 1


async def test_sigterm_drains_all_of_them(
    http: aiohttp.ClientSession, settings_for: Settings, database: DatabaseProcess
) -> None:
    env = settings_for(WORKERS="1", SHUTDOWN_GRACE_SECONDS="20")
    async with Processes("serve", "--processes", "2", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "work", "payload": {"seconds": 5}}] * 2)

        async def both_run() -> bool:
            return {job["status"] for job in await client.jobs(ids)} == {"processing"}

        await eventually(both_run, seconds=30, what="both jobs to run")
        pids = service.living().values()

        assert await service.stop() == 0

        await gone(pids, seconds=1)
        assert Counter(line["event"] for line in service.events)["stopped"] == 2
    async with ServiceProcess("api", env=settings_for()) as api:
        jobs = await Client(http, api.url).jobs(ids)
    assert [(job["status"], job["retryCount"]) for job in jobs] == [("completed", 1)] * 2
    assert len({job["result"]["pid"] for job in jobs}) == 2


async def test_a_killed_process_comes_back_and_no_accepted_job_is_lost(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    env = settings_for(WORKERS="2", LEASE_SECONDS="2")
    async with Processes("serve", "--processes", "2", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "work", "payload": {"seconds": 0.2}}] * 30)
        killed = service.living()[2]

        os.kill(killed, signal.SIGKILL)

        ended = await service.wait_for_event("process ended")
        assert (ended["process"], ended["exit_code"], ended["again_in_seconds"]) == (2, -9, 0.5)
        assert await service.is_back(2, after=killed) != killed
        async with aiohttp.ClientSession() as again:  # the connection may have been one to the dead
            client = Client(again, service.url)
            for job_id in ids:
                await client.get(f"/jobs/{job_id}?wait=30")
            assert {job["status"] for job in await client.jobs(ids)} == {"completed"}
        more = await post_by_new_connections(service.url, 16, type="work", payload={})

        async def both_are_shown() -> bool:
            return (await enqueued(service.url)).keys() == {"1", "2"}

        await eventually(both_are_shown, seconds=30, what="a scrape to show both")
        assert len(more) == 16
        assert await service.stop() == 0


@pytest.mark.parametrize("by", ["fork", "shell"])
async def test_a_killed_process_comes_back_while_one_that_its_task_started_lives_on(
    http: aiohttp.ClientSession, settings_for: Settings, by: str
) -> None:
    async with Processes("worker", "--processes", "2", "--tasks", WITNESSED, env=settings_for(WORKERS="2")) as workers:
        async with ServiceProcess("api", env=settings_for()) as api:
            client = Client(http, api.url)
            _, created = await client.post("/jobs", {"type": "leave-a-process", "payload": {"by": by}})
            _, job = await client.get(f"/jobs/{created['id']}?wait=30")
        killed, left = job["result"]["pid"], job["result"]["left"]
        number = next(number for number, pid in workers.living().items() if pid == killed)
        try:
            os.kill(killed, signal.SIGKILL)

            ended = await workers.wait_for_event("process ended", process=number)
            assert ended["exit_code"] == -signal.SIGKILL
            assert await workers.is_back(number, after=killed) != killed
            workers.send(signal.SIGTERM)
            await workers.wait_for_event("stopped", process=number)
            await gone([workers.pid], seconds=30)
            assert Process.of(left)
        finally:
            os.kill(left, signal.SIGKILL)
        assert await workers.wait(seconds=30) == 0


def test_what_a_task_starts_does_not_inherit_the_way_to_the_supervisor() -> None:
    assignment = Assignment.of(
        load_settings(),
        mongodb_uri="mongodb://db/",
        http=False,
        workers=True,
        modules=(),
        simulate=False,
        folder="/tmp/x",
        numbers=(1,),
        number=1,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.set_inheritable(True)  # as it is when it comes from the supervisor
        ours.sendall(assignment.model_dump_json().encode() + b"\n")

        Supervised(theirs)

        assert not theirs.get_inheritable()


async def test_processes_whose_supervisor_is_killed_stop_in_order(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness, temporary: Path
) -> None:
    env = {"TMPDIR": str(temporary)} | settings_for(WORKERS="1", SHUTDOWN_GRACE_SECONDS="20")
    async with Processes("serve", "--processes", "2", "--tasks", WITNESSED, env=env) as service:
        client = Client(http, service.url)
        ids = await client.bulk([{"type": "work", "payload": {"seconds": 1}}] * 2)

        async def both_began() -> bool:
            return len(witness.began()) == 2

        await eventually(both_began, seconds=30, what="both jobs to run")
        pids = service.living().values()

        await service.kill()

        await gone(pids, seconds=30)
    async with ServiceProcess("api", env=settings_for()) as api:
        jobs = await Client(http, api.url).jobs(ids)
    assert [(job["status"], job["retryCount"]) for job in jobs] == [("completed", 1)] * 2


async def test_one_that_hears_no_signal_does_not_outlive_its_supervisor_for_long(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness
) -> None:
    env = settings_for(SHUTDOWN_GRACE_SECONDS="0")
    async with Processes("serve", "--processes", "2", "--tasks", WITNESSED, env=env) as service:
        await Client(http, service.url).post("/jobs", {"type": "block-the-loop", "payload": {"seconds": 300}})

        async def began() -> bool:
            return bool(witness.began())

        await eventually(began, seconds=30, what="the job to run")
        pids = service.living().values()

        await service.kill()

        await gone(pids, seconds=40)


async def test_the_second_signal_ends_all_at_once(
    http: aiohttp.ClientSession, settings_for: Settings, witness: Witness, temporary: Path
) -> None:
    env = {"TMPDIR": str(temporary)} | settings_for(SHUTDOWN_GRACE_SECONDS="60")
    async with Processes("serve", "--processes", "2", "--tasks", WITNESSED, env=env) as service:
        await Client(http, service.url).post("/jobs", {"type": "work", "payload": {"seconds": 300}})

        async def began() -> bool:
            return bool(witness.began())

        await eventually(began, seconds=30, what="the job to run")
        pids = service.living().values()
        service.send(signal.SIGINT)
        await service.wait_for_event("stopping", process=1)

        service.send(signal.SIGINT)

        assert await service.wait(seconds=30) == 130
        await gone(pids, seconds=30)


async def test_workers_without_a_port_need_none_and_an_api_has_no_slots(
    http: aiohttp.ClientSession, settings_for: Settings
) -> None:
    without_port = {name: value for name, value in settings_for(PROCESSES="2").items() if name != "JOBQUEUE_PORT"}
    async with (
        Processes("worker", "--tasks", WITNESSED, env=without_port) as workers,
        Processes("api", env=settings_for(PROCESSES="2")) as api,
    ):
        assert workers.url == "None"
        client = Client(http, api.url)

        ids = await post_by_new_connections(api.url, 8, type="work", payload={})
        for job_id in ids:
            await client.get(f"/jobs/{job_id}?wait=30")

        assert {job["status"] for job in await client.jobs(ids)} == {"completed"}
        _, rows = await client.get("/workers")
        assert {row["pid"] for row in rows} == set(workers.living().values())
        assert [await api.stop(), await workers.stop()] == [0, 0]


SHOP = """
from jobqueue.tasks import task

@task("email.send", max_retries=7)
async def send(): ...
"""


@pytest.mark.parametrize("kind", [ServiceProcess, Processes])
async def test_an_api_that_has_loaded_tasks_gives_their_attempts_to_jobs_and_runs_none(
    http: aiohttp.ClientSession, settings_for: Settings, tmp_path: Path, kind: type[ServiceProcess]
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    env = settings_for(PROCESSES="2" if kind is Processes else "1", MAX_RETRIES="4")

    async with kind("api", "--tasks", str(tmp_path / "shop.py"), env=env) as api:
        client = Client(http, api.url)
        wanted = [{"type": "email.send"}, {"type": "another"}, {"type": "email.send", "maxRetries": 2}]
        jobs = [(await client.post("/jobs", each))[1] for each in wanted]
        workers = await client.get("/workers")

    assert [job["maxRetries"] for job in jobs] == [7, 4, 2]
    assert workers == (200, [])


async def test_what_is_wrong_is_one_sentence_whoever_finds_it(settings_for: Settings) -> None:
    env = settings_for(PROCESSES="2", SIMULATE="true", MONGODB_URI="mongodb://me:s3cr3t@127.0.0.1:1/")

    code, output, errors = await run_command("serve", env=env)

    assert (code, output) == (1, "")
    said = [line for line in errors.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert said[0].startswith("jobqueue: process 1 did not start: cannot connect")
    assert "s3cr3t" not in errors
    assert [json.loads(line)["level"] for line in errors.splitlines() if line.startswith("{")].count("error") == 0


async def test_a_second_service_on_the_port_is_refused(settings_for: Settings) -> None:
    async with Processes("api", env=settings_for(PROCESSES="2")) as api:
        port = api.url.rpartition(":")[2]

        for processes in ("1", "2"):
            code, _, errors = await run_command("api", env=settings_for(PORT=port, PROCESSES=processes))

            assert code == 1
            assert f"jobqueue: cannot listen on 127.0.0.1:{port} (" in errors
            assert "set JOBQUEUE_PORT" in errors


async def test_a_process_whose_supervisor_is_gone_before_it_could_say_what_to_do_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, *PROGRAM, str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    assert await end_of(child, seconds=60) == (EXIT_AT_ONCE, "", "")
