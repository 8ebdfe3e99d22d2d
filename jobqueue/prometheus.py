"""Metrics for Prometheus: this process counted, and the database as of the last second.

Counters and histograms are of this process only (add them up over all processes); of several behind one port each is
shown, told apart by the label `process`. What is in the database is shown as gauges, the same in every process (take
the maximum, not the sum). Labels are bounded, whatever clients make up: names of queues and types beyond the bounds
are counted under `other`, and no id is ever a label.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from jobqueue import __version__
from jobqueue.job import Job
from jobqueue.repository import DatabaseState, QueueCount, Totals

OTHER = "other"
MAX_QUEUES = 50
MAX_TYPES = 100
MAX_PAIRS = 500
"""How many pairs of queue and type are told apart; each is a handful of time series."""

WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
RUN_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
BATCH_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


Snapshots = Mapping[int, bytes | None]
"""What several processes counted, by their numbers; None of one that did not answer."""


class Names:
    """Label values out of names that clients make up: the first so many, all others are `other`."""

    def __init__(self, most: int, *, only: Collection[str] | None = None) -> None:
        """`only` are the names that may be told apart; None means any."""
        self._most = most
        self._only = only
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        """The name itself, or `other`."""
        if name in self._names:
            return name
        if len(self._names) >= self._most or (self._only is not None and name not in self._only):
            return OTHER
        self._names.add(name)
        return name


class PrometheusMetrics:
    """Counts what an engine does, and writes it down for Prometheus. Belongs to one event loop."""

    def __init__(self, *, types: Collection[str] | None = None) -> None:
        """`types` are those that can be run here; None where any can be."""
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._queues = Names(MAX_QUEUES)
        self._types = Names(MAX_TYPES, only=types)
        self._pairs: set[tuple[str, str]] = set()
        # What is counted for every job, without the locks and checks that cost ten times as much.
        self._enqueued = PlainCounter("jobqueue_jobs_enqueued", "Jobs stored by this process.", ["queue", "type"])
        self._ended = PlainCounter(
            "jobqueue_attempts", "Attempts of this process whose outcome is written.", ["queue", "type", "outcome"]
        )
        self._waited = PlainHistogram(
            "jobqueue_job_wait_seconds", "From when a job was due until an attempt began.", "queue", WAIT_BUCKETS
        )
        self._ran = PlainHistogram(
            "jobqueue_attempt_run_seconds",
            "From the claim of an attempt until its outcome was written.",
            "type",
            RUN_BUCKETS,
        )
        for plain in (self._enqueued, self._ended, self._waited, self._ran):
            registry.register(plain)
        self._asked = Counter("jobqueue_claims_asked", "Jobs that this process tried to claim.", registry=registry)
        self._won = Counter("jobqueue_claims_won", "Jobs that this process did claim.", registry=registry)
        self._lost = Counter(
            "jobqueue_leases_lost", "Attempts of this process that lost their lease to another.", registry=registry
        )
        self._expired = Counter(
            "jobqueue_leases_expired",
            "Attempts of silent workers that this process took back, by what became of the job.",
            ["outcome"],
            registry=registry,
        )
        self._batches = Histogram(
            "jobqueue_batch_items",
            "Items in one write of a group commit.",
            ["kind"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._running = Gauge(
            "jobqueue_attempts_running", "Attempts of this process without a written outcome.", registry=registry
        )
        self._slots = Gauge("jobqueue_slots", "Jobs that this process runs at the same time.", registry=registry)
        Gauge("jobqueue_build_info", "1, with the version.", ["version"], registry=registry).labels(__version__).set(1)
        ProcessCollector(namespace="jobqueue", registry=registry)
        self._ask_all: Callable[[], Awaitable[Snapshots]] | None = None

    def watch_pool(self, *, slots: int, running: Callable[[], int]) -> None:
        """Show how many jobs run here; `running` is asked when metrics are."""
        self._slots.set(slots)
        self._running.set_function(running)

    def show_all(self, ask_all: Callable[[], Awaitable[Snapshots]]) -> None:
        """Show what all processes behind this port counted; `ask_all` is asked for that when metrics are."""
        self._ask_all = ask_all

    def snapshot(self) -> bytes:
        """What this process counted, for `Snapshots`."""
        return json.dumps([_packed(family) for family in self.registry.collect()]).encode()

    async def scrape(self, wanted: str, state: DatabaseState | None) -> tuple[bytes, str]:
        """Everything as text, and its content type. `wanted` is one media range of an Accept header; `state` is
        None while the database does not answer."""
        return self.render(wanted, state, None if self._ask_all is None else await self._ask_all())

    def render(self, wanted: str, state: DatabaseState | None, snapshots: Snapshots | None = None) -> tuple[bytes, str]:
        """As `scrape`, of this process, or of those that took `snapshots`."""
        counted = self.registry.collect() if snapshots is None else _told_apart(snapshots)
        encode, content_type = choose_encoder(wanted)
        return encode(_Families([*counted, *_database(state)])), content_type

    # Observer

    def enqueued(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            pair = (job.queue, job.type)
            self._enqueued.counts[pair if pair in self._pairs else self._new_pair(*pair)] += 1

    def claimed(self, *, asked: int, won: int) -> None:
        self._asked.inc(asked)
        self._won.inc(won)

    def started(self, job: Job) -> None:
        if job.started_at is not None:
            waited = (job.started_at - job.run_at).total_seconds()
            self._waited.observe(self._queues.label(job.queue), max(0.0, waited))

    def ended(self, job: Job, outcome: str, seconds: float) -> None:
        self._ended.counts[(*self._pair(job.queue, job.type), outcome)] += 1
        self._ran.observe(self._types.label(job.type), seconds)

    def lease_lost(self, job: Job) -> None:
        self._lost.inc()

    def leases_expired(self, *, requeued: int, failed: int, cancelled: int) -> None:
        self._expired.labels("requeued").inc(requeued)
        self._expired.labels("failed").inc(failed)
        self._expired.labels("cancelled").inc(cancelled)

    def wrote_batch(self, kind: str, items: int) -> None:
        self._batches.labels(kind).observe(items)

    def _pair(self, queue: str, job_type: str) -> tuple[str, str]:
        known = (queue, job_type)
        return known if known in self._pairs else self._new_pair(queue, job_type)

    def _new_pair(self, queue: str, job_type: str) -> tuple[str, str]:
        pair = (self._queues.label(queue), self._types.label(job_type))
        if pair not in self._pairs:
            if len(self._pairs) >= MAX_PAIRS:
                return (OTHER, OTHER)
            self._pairs.add(pair)
        return pair


class PlainCounter(Collector):
    """Counters for one thread. The labels that are counted under are to be bounded."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)

    def collect(self) -> Iterator[Metric]:
        """As the client library has it."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self.counts.items():
            family.add_metric(labels, count)
        yield family


class PlainHistogram(Collector):
    """Histograms by one label, for one thread. The values of that label are to be bounded."""

    def __init__(self, name: str, documentation: str, label: str, bounds: Sequence[float]) -> None:
        self._name, self._documentation, self._label, self._bounds = name, documentation, label, bounds
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums: defaultdict[str, float] = defaultdict(float)

    def observe(self, label: str, value: float) -> None:
        """One more, of this value."""
        self._counts[label][bisect_left(self._bounds, value)] += 1
        self._sums[label] += value

    def collect(self) -> Iterator[Metric]:
        """As the client library has it."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for label, counts in self._counts.items():
            family.add_metric([label], list(zip(bounds, accumulate(counts), strict=True)), self._sums[label])
        yield family


class _Families(Collector):
    """What is already collected."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """As it is."""
        return iter(self._families)


def _packed(family: Metric) -> tuple[object, ...]:
    samples = [(sample.name, sample.labels, sample.value) for sample in family.samples]
    return family.name, family.documentation, family.type, family.unit, samples


def _told_apart(snapshots: Snapshots) -> Iterator[Metric]:
    """The families of several processes, each sample with the number of its process. One that is started again begins
    at zero, which is what Prometheus expects of a counter."""
    up = GaugeMetricFamily("jobqueue_process_up", "Whether this process behind the port answered.", labels=["process"])
    families: dict[str, Metric] = {}
    for number, snapshot in snapshots.items():
        up.add_metric([str(number)], float(snapshot is not None))
        for name, documentation, kind, unit, samples in json.loads(snapshot or b"[]"):
            family = families.setdefault(name, Metric(name, documentation, kind, unit))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "process": str(number)}, value)
    yield up
    yield from families.values()


def _database(state: DatabaseState | None) -> Iterator[Metric]:
    """What is in the database, whoever put it there; while it is not known, only that."""
    yield GaugeMetricFamily(
        "jobqueue_database_up", "Whether MongoDB answered for this scrape.", value=float(state is not None)
    )
    if state is not None:
        yield from _totals(state.totals)
        yield from _queues(state)


def _totals(totals: Totals) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("jobqueue_database_jobs", "Jobs in the database, by status.", labels=["status"])
    for status, count in totals.present.items():
        jobs.add_metric([status.value], count)
    yield jobs
    ever = GaugeMetricFamily(
        "jobqueue_database_finished_jobs",
        "Jobs that ended like this and were not put back since, those deleted by now included.",
        labels=["status"],
    )
    for name, count in (("completed", totals.processed), ("failed", totals.failed), ("cancelled", totals.cancelled)):
        ever.add_metric([name], count)
    yield ever
    yield GaugeMetricFamily(
        "jobqueue_database_retried_attempts", "Attempts that were put back, ever.", value=totals.retried
    )
    yield GaugeMetricFamily(
        "jobqueue_database_idempotency_keys", "Idempotency keys that are in force.", value=totals.idempotency_keys
    )


def _queues(state: DatabaseState) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "jobqueue_queue_jobs", "Unfinished jobs in the database, by queue and status.", labels=["queue", "status"]
    )
    oldest = GaugeMetricFamily(
        "jobqueue_queue_oldest_pending_age_seconds",
        "For how long the longest due job of a queue has been waiting; 0 when none is.",
        labels=["queue"],
    )
    for name, group in _bounded(state.queues):
        jobs.add_metric([name, "pending"], sum(queue.pending for queue in group))
        jobs.add_metric([name, "scheduled"], sum(queue.scheduled for queue in group))
        jobs.add_metric([name, "processing"], sum(queue.processing for queue in group))
        oldest.add_metric([name], max(queue.oldest_age_seconds(state.now) or 0.0 for queue in group))
    yield jobs
    yield oldest


def _bounded(queues: Sequence[QueueCount]) -> Iterator[tuple[str, Sequence[QueueCount]]]:
    """The fullest queues each by itself, the rest together."""
    fullest = sorted(queues, key=lambda queue: (-queue.pending - queue.scheduled - queue.processing, queue.name))
    own = {queue.name: [queue] for queue in fullest[:MAX_QUEUES]}
    rest = fullest[MAX_QUEUES:]
    if rest:
        own.setdefault(OTHER, []).extend(rest)
    yield from own.items()
