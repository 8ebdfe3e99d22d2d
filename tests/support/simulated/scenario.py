"""What a seed stands for: a server, some processes, what clients ask for, and what goes wrong. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from simulated.server import ServerOptions
from simulated.work import Step

QUEUES = ("default", "mail")
FAULTS = (
    "outage",
    "outage",
    "stepdown",
    "partition",
    "partition of calls",
    "partition of leases",
    "freeze",
    "freeze",
    "blocked loop",
    "silent heartbeat",
    "kill",
    "kill",
    "stop",
    "rolling restart",
    "clock set",
)


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that a client will enqueue. `name` is an id of the client's own; two may be given the same."""

    at: float
    plan: list[Step]
    name: str | None
    queue: str
    priority: int
    max_retries: int
    delay_seconds: float
    timeout_seconds: float | None
    batch: int
    """How many alike are enqueued at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """Something else that a client does to some job."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a time and, mostly, for a while. It hits after so many further callbacks of
    its victim, which is to say: at any of its `await`s."""

    at: float
    kind: str
    seconds: float
    steps: int
    silently: bool
    clock_step: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Which scenarios are drawn. The default is everything; others look for one kind of trouble."""

    faults: tuple[str, ...] = FAULTS
    most_faults: int = 9
    fault_seconds: tuple[float, ...] = (0.05, 0.5, 1.5, 2.5)
    """How long one lasts, more or less; in leases."""
    durations: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.0, 0.1), (0.0, 1.0), (1.0, 3.0))
    """How long attempts take, from and to; in leases."""
    call_faults: tuple[float, ...] = (0.0, 0.01, 0.03, 0.08)
    jobs: tuple[int, int] = (12, 30)
    leases: tuple[float, ...] = (5.0, 5.0, 10.0, 20.0)
    trouble: tuple[float, float] = (3.0, 7.0)
    """How long the trouble lasts, in leases."""
    latencies: tuple[float, ...] = (0.001, 0.005, 0.05)
    queues: tuple[str, ...] = QUEUES
    requests: tuple[int, int] = (0, 8)
    flavours: tuple[str, ...] = ("replica set", "replica set", "standalone", "sharded", "embedded")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. Times are virtual seconds."""

    seed: int
    server: ServerOptions
    latency_seconds: float
    call_faults: float
    disorder: float
    lease_seconds: float
    poll_seconds: float
    claim: str
    slots: int
    queue_size: int
    workers: int
    retention_seconds: float
    calm_at: float
    jobs: list[PlannedJob] = field(repr=False)
    requests: list[Request] = field(repr=False)
    faults: list[Fault] = field(repr=False)

    @classmethod
    def of(cls, seed: int, profile: Profile) -> Scenario:
        """The scenario of a seed."""
        random = Random(f"scenario {seed}")
        lease = random.choice(profile.leases)
        calm_at = random.uniform(*profile.trouble) * lease + 5.0
        return cls(
            seed=seed,
            server=ServerOptions(
                flavour=random.choice(profile.flavours),
                replication_seconds=random.choice([0.001, 0.01, 0.1]),
                interruption=random.choice([0.0, 0.1, 0.5]),
            ),
            latency_seconds=random.choice(profile.latencies),
            call_faults=random.choice(profile.call_faults),
            disorder=random.choice([0.0, 0.0, 0.2]),
            lease_seconds=lease,
            poll_seconds=random.choice([1.0, 2.0]),
            claim=random.choice(["auto", "auto", "single", "batch"]),
            slots=random.randint(1, 5),
            queue_size=random.choice([4, 30]),
            workers=random.randint(2, 3),
            # Longer than a request can be late: an insert that comes after its job was pruned makes it once more.
            retention_seconds=random.choice([40.0, 3600.0]),
            calm_at=calm_at,
            jobs=sorted(
                (_job(random, profile, lease, calm_at) for _ in range(random.randint(*profile.jobs))),
                key=lambda job: job.at,
            ),
            requests=[
                Request(random.uniform(1.0, calm_at), random.choice(["cancel", "cancel", "redrive", "redrive many"]))
                for _ in range(random.randint(*profile.requests))
            ],
            faults=sorted(
                (
                    _fault(random, profile, lease, calm_at)
                    for _ in range(random.randint(profile.most_faults // 3, profile.most_faults))
                ),
                key=lambda fault: fault.at,
            ),
        )


def _job(random: Random, profile: Profile, lease: float, calm_at: float) -> PlannedJob:
    return PlannedJob(
        at=random.uniform(0.0, calm_at * 0.8),
        plan=[_step(random, profile, lease) for _ in range(random.randint(0, 2))]
        + [_last_step(random, profile, lease)],
        name=f"job-{random.randrange(6)}" if random.random() < 0.15 else None,
        queue=random.choice(profile.queues),
        priority=random.choice([0, 0, 0, 5, -5]),
        max_retries=random.randint(1, 4),
        delay_seconds=random.choice([0.0, 0.0, 0.0, random.uniform(0.0, lease)]),
        timeout_seconds=random.choice([None, None, None, None, lease / 2]),
        batch=random.choice([1, 1, 1, 3]),
    )


def _step(random: Random, profile: Profile, lease: float) -> Step:
    end = random.choice(["complete", "retry", "retry", "snooze", "fail"])
    stubborn = random.choice([0.0, 0.0, random.uniform(0.0, lease * 1.5)])
    return Step(end, _duration(random, profile, lease), stubborn, random.random() < 0.2, random.random() < 0.5)


def _last_step(random: Random, profile: Profile, lease: float) -> Step:
    end = random.choice(["complete", "complete", "complete", "complete", "retry"])
    return Step(end, _duration(random, profile, lease), result=random.random() < 0.5)


def _duration(random: Random, profile: Profile, lease: float) -> float:
    return random.uniform(*random.choice(profile.durations)) * lease


def _fault(random: Random, profile: Profile, lease: float, calm_at: float) -> Fault:
    return Fault(
        at=random.uniform(1.0, calm_at * 0.9),
        kind=random.choice(profile.faults),
        seconds=random.choice(profile.fault_seconds) * lease * random.uniform(0.6, 1.4),
        steps=random.randrange(60),
        silently=random.random() < 0.5,
        clock_step=random.choice([0.0, random.uniform(-1, 1), random.uniform(-300, 300)]),
    )
