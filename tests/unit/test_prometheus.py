"""Metrics as Prometheus sees them: named as is usual there, bounded, and the same that dashboard and alerts use."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric
from scraped import families_in

from jobqueue.job import FINISHED, Job, JobId, Status
from jobqueue.prometheus import MAX_PAIRS, MAX_QUEUES, MAX_TYPES, OTHER, PrometheusMetrics
from jobqueue.repository import DatabaseState, QueueCount, Totals

DOCS = Path(__file__).parents[2] / "docs"
NOW = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
TEXT = "text/plain;version=0.0.4"
METRIC = re.compile(r"\bjobqueue_\w+")


def job(*, queue: str = "default", job_type: str = "email", waited: float = 1.0) -> Job:
    due = NOW - timedelta(seconds=waited)
    return Job(id=JobId("job-1"), queue=queue, type=job_type, run_at=due, started_at=NOW)


def state(*, queues: int = 1) -> DatabaseState:
    counts = [QueueCount(f"q{n}", pending=n, scheduled=1, processing=2, oldest_pending_at=NOW) for n in range(queues)]
    totals = Totals(dict.fromkeys(Status, 1), dict.fromkeys(FINISHED, 2), retried=3, idempotency_keys=4)
    return DatabaseState(totals, counts, NOW + timedelta(seconds=90))


def families(metrics: PrometheusMetrics, database: DatabaseState | None = None) -> dict[str, Metric]:
    body, content_type = metrics.render(OPENMETRICS, database)
    return {family.name: family for family in families_in(body.decode(), content_type)}


def samples(family: Metric, name: str | None = None) -> dict[tuple[str, ...], float]:
    """Values by label values, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for sample in family.samples
        if not sample.name.endswith("_created") and name in (None, sample.name)
    }


def busy() -> PrometheusMetrics:
    """Metrics that have seen everything once."""
    metrics = PrometheusMetrics()
    metrics.watch_pool(slots=10, running=lambda: 3)
    metrics.enqueued([job()])
    metrics.claimed(asked=3, won=2)
    metrics.started(job())
    metrics.ended(job(), "completed", 0.5)
    metrics.lease_lost(job())
    metrics.leases_expired(requeued=1, failed=0, cancelled=0)
    metrics.wrote_batch("inserts", 7)
    return metrics


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    for name, family in families(busy(), state()).items():
        assert name.startswith("jobqueue_"), name
        assert family.documentation, name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples), name
        else:
            assert not name.endswith("_total"), name


def test_what_happened_is_counted() -> None:
    found = families(busy(), state())

    assert samples(found["jobqueue_jobs_enqueued"]) == {("default", "email"): 1}
    assert samples(found["jobqueue_attempts"]) == {("completed", "default", "email"): 1}
    assert samples(found["jobqueue_claims_asked"]) == {(): 3}
    assert samples(found["jobqueue_claims_won"]) == {(): 2}
    assert samples(found["jobqueue_leases_lost"]) == {(): 1}
    assert samples(found["jobqueue_leases_expired"])[("requeued",)] == 1
    assert samples(found["jobqueue_slots"]) == {(): 10}
    assert samples(found["jobqueue_attempts_running"]) == {(): 3}
    assert samples(found["jobqueue_job_wait_seconds"], "jobqueue_job_wait_seconds_sum") == {("default",): 1.0}
    assert samples(found["jobqueue_attempt_run_seconds"], "jobqueue_attempt_run_seconds_sum") == {("email",): 0.5}
    assert samples(found["jobqueue_batch_items"], "jobqueue_batch_items_sum") == {("inserts",): 7}


def test_the_database_is_shown_as_gauges() -> None:
    found = families(busy(), state())

    assert samples(found["jobqueue_database_up"]) == {(): 1}
    assert samples(found["jobqueue_database_finished_jobs"])[("completed",)] == 3
    assert samples(found["jobqueue_database_retried_attempts"]) == {(): 3}
    assert samples(found["jobqueue_database_idempotency_keys"]) == {(): 4}
    assert samples(found["jobqueue_queue_oldest_pending_age_seconds"]) == {("q0",): 90}
    assert {found[name].type for name in found if name.startswith(("jobqueue_database", "jobqueue_queue"))} == {"gauge"}


def test_while_the_database_is_away_the_process_is_shown_and_no_old_numbers() -> None:
    metrics = busy()
    metrics.render(TEXT, state())

    found = families(metrics, None)

    assert samples(found["jobqueue_database_up"]) == {(): 0}
    assert "jobqueue_attempts" in found
    assert not [name for name in found if name.startswith(("jobqueue_database_jobs", "jobqueue_queue"))]


def test_ten_thousand_types_and_queues_make_a_bounded_number_of_series() -> None:
    metrics = PrometheusMetrics()
    for n in range(10_000):
        one = job(queue=f"queue-{n % 1_000}", job_type=f"type-{n}")
        metrics.enqueued([one])
        metrics.started(one)
        metrics.ended(one, "completed", 0.1)

    found = families(metrics, state(queues=1_000))

    assert len(samples(found["jobqueue_attempts"])) <= MAX_PAIRS + 1
    assert sum(samples(found["jobqueue_attempts"]).values()) == 10_000
    assert sum(samples(found["jobqueue_jobs_enqueued"]).values()) == 10_000
    assert len(samples(found["jobqueue_attempt_run_seconds"], "jobqueue_attempt_run_seconds_count")) <= MAX_TYPES + 1
    assert len(samples(found["jobqueue_job_wait_seconds"], "jobqueue_job_wait_seconds_count")) <= MAX_QUEUES + 1
    oldest = samples(found["jobqueue_queue_oldest_pending_age_seconds"])
    assert len(oldest) == MAX_QUEUES + 1
    assert (OTHER,) in oldest
    assert sum(samples(found["jobqueue_queue_jobs"]).values()) == sum(range(1_000)) + 3_000
    assert len(metrics.render(TEXT, state(queues=1_000))[0]) < 1 << 20


def test_pairs_of_queue_and_type_are_bounded_too() -> None:
    metrics = PrometheusMetrics()
    for queue in range(MAX_QUEUES):
        for job_type in range(MAX_TYPES):
            metrics.ended(job(queue=f"q{queue}", job_type=f"t{job_type}"), "completed", 0.1)

    found = samples(families(metrics)["jobqueue_attempts"])

    assert len(found) == MAX_PAIRS + 1
    assert found[("completed", OTHER, OTHER)] == MAX_QUEUES * MAX_TYPES - MAX_PAIRS


def test_types_that_cannot_be_run_here_are_not_told_apart() -> None:
    metrics = PrometheusMetrics(types={"email"})

    metrics.ended(job(job_type="email"), "completed", 0.1)
    metrics.ended(job(job_type="made-up"), "retried", 0.1)

    assert samples(families(metrics)["jobqueue_attempts"]) == {
        ("completed", "default", "email"): 1,
        ("retried", "default", OTHER): 1,
    }


def test_no_id_is_ever_a_label() -> None:
    assert b"job-1" not in busy().render(TEXT, state())[0]


def test_two_engines_in_one_process_do_not_share_their_metrics() -> None:
    first, second = busy(), PrometheusMetrics()

    assert samples(families(first)["jobqueue_jobs_enqueued"])
    assert not samples(families(second)["jobqueue_jobs_enqueued"])


def test_processes_behind_one_port_are_told_apart_and_the_database_is_shown_once() -> None:
    second = busy()
    second.enqueued([job()])

    body, content_type = PrometheusMetrics().render(
        OPENMETRICS, state(), {1: busy().snapshot(), 2: second.snapshot(), 3: None}
    )
    found = {family.name: family for family in families_in(body.decode(), content_type)}

    assert samples(found["jobqueue_process_up"]) == {("1",): 1, ("2",): 1, ("3",): 0}
    assert samples(found["jobqueue_jobs_enqueued"]) == {("1", "default", "email"): 1, ("2", "default", "email"): 2}
    assert samples(found["jobqueue_slots"]) == {("1",): 10, ("2",): 10}
    assert samples(found["jobqueue_database_finished_jobs"])[("completed",)] == 3
    assert samples(found["jobqueue_database_up"]) == {(): 1}


def test_what_several_processes_counted_is_written_as_what_one_did() -> None:
    """Types, units, help and every sample, but for the label."""
    body, _ = PrometheusMetrics().render(TEXT, state(), {1: busy().snapshot()})
    told = re.sub(rb"""(?<=[{,])process="1",?""", b"", body).replace(b",}", b"}").replace(b"{}", b"")

    volatile = re.compile(rb"_created|jobqueue_process_")
    lines = {line for line in told.splitlines() if not volatile.search(line)}
    assert lines == {line for line in busy().render(TEXT, state())[0].splitlines() if not volatile.search(line)}


def exposed() -> set[str]:
    """The names of all series, as queries use them."""
    body, _ = busy().render(TEXT, state())
    return {sample.name for family in families_in(body.decode(), TEXT) for sample in family.samples}


def expressions(panels: Iterable[dict[str, Any]]) -> Iterable[str]:
    for panel in panels:
        yield from (target["expr"] for target in panel["targets"])


def test_the_dashboard_uses_only_metrics_that_exist() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    queries = [*expressions(dashboard["panels"]), *(one["query"] for one in dashboard["templating"]["list"])]

    used = {name for query in queries for name in METRIC.findall(query)}

    assert len(used) > 10
    assert used <= exposed()


def test_the_alerts_use_only_metrics_that_exist() -> None:
    rules = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]

    used = {name for rule in alerts for name in METRIC.findall(rule["expr"])}

    assert len(used) > 5
    assert used <= exposed()
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in alerts)


def test_the_page_about_metrics_names_every_metric_and_no_other() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(jobqueue_\w+)`", page, re.MULTILINE))

    found = families(busy(), state())
    wanted = {f"{name}_total" if family.type == "counter" else name for name, family in found.items()}

    assert named == {name for name in wanted if not name.startswith("jobqueue_process_")}


async def promtool(*arguments: str, stdin: bytes = b"") -> None:
    """Run it; fails with what it says unless it accepts."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on the PATH (Debian has it in the package prometheus)")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "promtool", *arguments, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate(stdin)
    assert process.returncode == 0, output.decode()


async def test_promtool_accepts_the_alerts() -> None:
    await promtool("check", "rules", str(DOCS / "alerts.yml"))


async def test_promtool_finds_nothing_to_say_of_the_metrics() -> None:
    await promtool("check", "metrics", stdin=busy().render(TEXT, state())[0])
    await promtool("check", "metrics", stdin=busy().render(TEXT, state(), {1: busy().snapshot(), 2: None})[0])
