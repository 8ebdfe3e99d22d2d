"""What must hold in every history: sections 2, 3 and 5 of the design, as predicates on what was recorded.

Each rule looks at the writes that lasted (those that a change of primary undid were never acknowledged), at
what attempts saw, or at what callers were told. None knows how the engine works.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from simulated.documents import Document
from simulated.history import Event, History, Write
from simulated.scenario import Scenario
from simulated.server import SimulatedServer

from jobqueue.job import FINISHED, MAX_ERRORS, MOVES, WAITING, Status

OWNERS_MOVES = frozenset({"complete", "retry", "fail", "snooze", "release", "abandon", "quarantine"})
GIVEN_BACK = frozenset({"snooze", "release", "release orphan"})
FINAL_VERBS = frozenset({"complete", "fail", "abandon", "quarantine"})
CLOCK_TOLERANCE = timedelta(seconds=2.5)

OUTCOMES_OF = {
    "complete": {"complete"},
    "retry": {"retry", "fail"},
    "fail": {"fail"},
    "snooze": {"snooze"},
    "interrupted": {"retry", "fail", "release", "abandon"},
}
"""Which outcomes may be reported of an attempt that ended so. A retry without attempts left is a failure; an
interrupted attempt was stopped, or took too long."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    rule: str
    detail: str
    at: float
    job_id: str | None = None

    def __str__(self) -> str:
        return f"{self.at:.4f}  {self.rule}: {self.detail}"


class Outcome(Protocol):
    """What the rules need to know of a run beside its history."""

    scenario: Scenario
    server: SimulatedServer
    all_ended: bool


Rule = Callable[[History, Outcome], Iterator[Violation]]


def violations(history: History, world: Outcome) -> list[Violation]:
    """Everything that was wrong, the earliest first."""
    return sorted((found for rule in RULES for found in rule(history, world)), key=lambda violation: violation.at)


def move_of(before: Document | None, after: Document | None) -> str | None:
    """Which move a write was; None when the state stayed. Raises `ValueError` when it was none."""
    if before is None:
        return "enqueue"
    if after is None:
        return "delete"
    source, target = Status(before["status"]), Status(after["status"])
    if source is target:
        return None
    if source is not Status.PROCESSING:
        name = next(name for name in ("promote", "claim", "cancel", "redrive", "") if _fits(name, source, target))
    elif before.get("lastOutcome") != after.get("lastOutcome"):
        name = str(after["lastOutcome"]["kind"])
    else:
        name = "release orphan" if after["retryCount"] < before["retryCount"] else "rescue"
    legal = {"quarantine": "fail", "release orphan": "release"}.get(name, name)
    if not _fits(legal, source, target):
        raise ValueError(f"{name or 'nothing'} goes from {source} to {target}")
    return name


def _fits(name: str, source: Status, target: Status) -> bool:
    move = MOVES.get(name)
    return not name or (move is not None and source in move.sources and target in move.targets)


def _moves(history: History) -> Iterator[tuple[Write, str | None]]:
    for write in history.writes():
        try:
            yield write, move_of(write.before, write.after)
        except ValueError:
            continue  # `only_legal_moves` tells


def only_legal_moves(history: History, world: Outcome) -> Iterator[Violation]:
    """Every change of state is one of `job.MOVES`; what is running or waiting is never pruned."""
    for write in history.writes():
        try:
            move = move_of(write.before, write.after)
        except ValueError as error:
            yield _wrong("an illegal move was written", str(error), write)
            continue
        if move == "delete" and write.before and not _may_be_pruned(write, world):
            yield _wrong("a job was pruned too early", f"it was {write.before['status']}", write)


def _may_be_pruned(write: Write, world: Outcome) -> bool:
    assert write.before is not None
    kept = timedelta(seconds=world.scenario.retention_seconds)
    return write.before["status"] in FINISHED and (
        write.server_time - write.before["finishedAt"] > kept - CLOCK_TOLERANCE - timedelta(seconds=60)
    )


def documents_are_in_shape(history: History, world: Outcome) -> Iterator[Violation]:
    """A lease only while processing, a time of finishing only when finished, bounded errors, no flag forgotten."""
    for write in history.writes():
        if write.after is not None and (problem := _misshapen(write.after)):
            yield _wrong("a document is out of shape", problem, write)


def _misshapen(job: Document) -> str | None:
    status = Status(job["status"])
    if ("lease" in job) is not (status is Status.PROCESSING):
        return f"{status}, lease: {job.get('lease')}"
    if ("finishedAt" in job) is not (status in FINISHED):
        return f"{status}, finishedAt: {job.get('finishedAt')}"
    if status in WAITING and "cancelRequestedAt" in job:
        return f"{status} although it was asked to stop"
    if len(job.get("errors", [])) > MAX_ERRORS:
        return f"{len(job['errors'])} errors"
    if not 0 <= job["retryCount"] <= job["maxRetries"]:
        return f"retryCount {job['retryCount']} of {job['maxRetries']}"
    return None


def attempts_are_counted(history: History, world: Outcome) -> Iterator[Violation]:
    """A claim counts, giving back takes it off again, a redrive begins anew, nothing else changes the count."""
    expected: dict[str | None, int] = {"claim": 1, **dict.fromkeys(GIVEN_BACK, -1)}
    for write, move in _moves(history):
        if write.before is None or write.after is None:
            continue
        before, after = write.before["retryCount"], write.after["retryCount"]
        if move == "redrive":
            before = after = 0 if after == 0 else after + 1
        if after - before != expected.get(move, 0):
            yield _wrong("retryCount is wrong", f"{move}: {before} -> {after}", write)


def only_the_owner_writes(history: History, world: Outcome) -> Iterator[Violation]:
    """Outcomes and progress come from the process that has the lease, under that lease."""
    for write in history.writes():
        if write.before is None or write.after is None:
            continue
        before, after = write.before, write.after
        lease = before.get("lease")
        if after.get("lastOutcome") != before.get("lastOutcome") and "lastOutcome" in after:
            wrote = after["lastOutcome"]["leaseId"]
            if lease is None or lease["id"] != wrote or lease["workerId"] != write.process:
                yield _wrong("an outcome was written without the lease", f"{wrote}, the lease was {lease}", write)
        showed = "progress" in after and after["progress"] != before.get("progress")
        if showed and (lease is None or lease["workerId"] != write.process):
            yield _wrong("progress was written without the lease", f"the lease was {lease}", write)


def leases_are_kept(history: History, world: Outcome) -> Iterator[Violation]:
    """A lease id is used for one claim, a renewal comes from whoever runs the attempt and shortens nothing."""
    won = {(job_id, event.fields["lease"]) for event in history.events("won") for job_id in _ids(event, "jobs")}
    used: set[tuple[str, str]] = set()
    for write, move in _moves(history):
        before, after = (document.get("lease") if document else None for document in (write.before, write.after))
        if move == "claim" and after is not None:
            if (write.job_id, after["id"]) in used:
                yield _wrong("a lease id was used twice", after["id"], write)
            used.add((write.job_id, after["id"]))
        if before is None or after is None or before == after:
            continue
        if before["id"] != after["id"] or after["expiresAt"] < before["expiresAt"]:
            yield _wrong("a lease was changed or shortened", f"{before} -> {after}", write)
        if after["workerId"] != write.process or (write.job_id, after["id"]) not in won:
            yield _wrong("a lease was renewed that nobody runs", f"{after}", write)


def nobody_is_robbed(history: History, world: Outcome) -> Iterator[Violation]:
    """An attempt is taken back only when its lease has expired, and never from an owner that is well: one whose
    lease thread could have done its work for a whole lease, whatever happened to the server meanwhile."""
    for write, move in _moves(history):
        if move == "rescue" and write.before is not None:
            expired = write.before["lease"]["expiresAt"]
            if expired >= write.server_time:
                left = (expired - write.server_time).total_seconds()
                yield _wrong("a lease was taken before it expired", f"{left:.3f} s were left", write)
    rescues = {(write.at, write.job_id) for write, move in _moves(history) if move == "rescue"}
    for event in history.events("takes back"):
        job_id = event.fields["job"]
        well = event.fields["undisturbed"] >= world.scenario.lease_seconds and not event.fields["past_its_time"]
        if (event.at, job_id) in rescues and event.fields["runs"] and well:
            yield _broken("a lease was taken from an owner that was well", event, job_id)


def attempts_are_what_they_seem(history: History, world: Outcome) -> Iterator[Violation]:
    """Each lease is begun at most once, by its process, with the number that its claim wrote, and never while an
    earlier attempt at the job runs in that process."""
    claims = {
        (write.job_id, write.after["lease"]["id"]): write
        for write, move in _moves(history)
        if move == "claim" and write.after is not None
    }
    begun: set[tuple[str, str]] = set()
    running: set[tuple[str, str]] = set()
    for event in history.events("begins", "ends"):
        attempt = event.fields["job"], event.fields["lease"]
        if event.kind == "ends":
            running.discard((event.process, attempt[0]))
            continue
        if (event.process, attempt[0]) in running:
            yield _broken("an attempt was begun beside an earlier one", event, attempt[0])
        running.add((event.process, attempt[0]))
        claim = claims.get(attempt)
        if attempt in begun:
            yield _broken("an attempt was begun twice", event, attempt[0])
        elif claim is None or claim.after is None:
            yield _broken("an attempt was begun without a claim", event, attempt[0])
        elif claim.process != event.process or claim.after["retryCount"] != event.fields["attempt"]:
            yield _broken("an attempt has the wrong number or process", event, attempt[0])
        begun.add(attempt)


def slots_are_respected(history: History, world: Outcome) -> Iterator[Violation]:
    """Neither do more attempts run than there are slots, nor are more claimed than are free."""
    running: defaultdict[str, int] = defaultdict(int)
    slots = world.scenario.slots
    for event in history.events("begins", "ends", "claims"):
        match event.kind:
            case "begins":
                running[event.process] += 1
                if running[event.process] > slots:
                    yield _broken(f"{running[event.process]} attempts run in {slots} slots", event, event.fields["job"])
            case "ends":
                running[event.process] -= 1
            case _ if event.fields["asked"] + event.fields["taken"] > slots:
                yield _broken("more was claimed than slots were free", event, _ids(event, "jobs")[0])


def priorities_are_respected(history: History, world: Outcome) -> Iterator[Violation]:
    """Nothing is claimed while the last look at the store showed something more urgent."""
    for event in history.events("claims"):
        if event.fields["passed_over"]:
            yield _broken("a job of a higher priority was passed over", event, _ids(event, "passed_over")[0])


def outcomes_are_true(history: History, world: Outcome) -> Iterator[Violation]:
    """What was reported is what the attempt came to; what was acknowledged was written, by that attempt."""
    ended = {(event.fields["job"], event.fields["lease"]): event.fields["how"] for event in history.events("ends")}
    for event in history.events("reports"):
        how = ended.get((event.fields["job"], event.fields["lease"]))
        if how is not None and event.fields["verb"] not in OUTCOMES_OF[how]:
            rule = "an attempt was reported otherwise than it ended"
            yield _broken(f"{rule}, with {how}", event, event.fields["job"])
    written = {
        (write.job_id, write.after["lastOutcome"]["leaseId"], move): write.after
        for write, move in _moves(history)
        if move in OWNERS_MOVES and write.after is not None
    }
    for event in history.events("is told: written"):
        job_id, lease, verb = event.fields["job"], event.fields["lease"], event.fields["verb"]
        after = written.get((job_id, lease, verb))
        if after is None:
            yield _broken("an outcome was acknowledged and not written", event, job_id)
        elif verb == "complete" and after.get("result", {"lease": lease})["lease"] != lease:
            yield _broken("a job has the result of another attempt", event, job_id)


def nobody_finishes_twice(history: History, world: Outcome) -> Iterator[Violation]:
    """Between two redrives one attempt at most is told that it ended the job."""
    lives = {
        (write.job_id, write.after["lastOutcome"]["leaseId"]): (write.after["insertId"], write.after.get("redrives"))
        for write, move in _moves(history)
        if move in FINAL_VERBS and write.after is not None
    }
    finished: dict[object, str] = {}
    for event in history.events("is told: written"):
        job_id, lease = event.fields["job"], event.fields["lease"]
        life = lives.get((job_id, lease))
        if event.fields["verb"] in FINAL_VERBS and finished.setdefault(life, lease) != lease:
            yield _broken(f"two attempts finished a job, the other was {finished[life]}", event, job_id)


def answers_are_true(history: History, world: Outcome) -> Iterator[Violation]:
    """A job that was accepted is there; one that was refused is not, and comes to nothing later."""
    inserted = {
        write.after.get("insertId") for write in history.writes() if write.before is None and write.after is not None
    }
    for event in history.events("is told: stored", "is told: refused"):
        is_there = event.fields["insert_id"] in inserted
        if is_there is not (event.kind == "is told: stored"):
            yield _broken("a client was told what is not true", event, event.fields["job"])


def every_job_ends(history: History, world: Outcome) -> Iterator[Violation]:
    """Whatever was accepted is finished, once the trouble is over."""
    if world.all_ended:
        return
    for job_id, job in world.server.jobs().items():
        if job["status"] not in FINISHED:
            detail = f"{job['status']}, retryCount {job['retryCount']}, lease {job.get('lease')}"
            yield Violation("a job never ends", detail, history.records[-1].at, job_id)


def the_engine_has_no_bugs(history: History, world: Outcome) -> Iterator[Violation]:
    """No step of the engine raised what it must not."""
    for event in history.events("bug"):
        yield _broken("the engine failed", event, None)


RULES: tuple[Rule, ...] = (
    only_legal_moves,
    documents_are_in_shape,
    attempts_are_counted,
    only_the_owner_writes,
    leases_are_kept,
    nobody_is_robbed,
    attempts_are_what_they_seem,
    slots_are_respected,
    priorities_are_respected,
    outcomes_are_true,
    nobody_finishes_twice,
    answers_are_true,
    every_job_ends,
    the_engine_has_no_bugs,
)


def _ids(event: Event, name: str) -> list[str]:
    listed: Any = event.fields[name]
    return str(listed).split(",") if listed else []


def _wrong(rule: str, detail: str, write: Write) -> Violation:
    return Violation(rule, f"{detail} ({write})", write.at, write.job_id)


def _broken(rule: str, event: Event, job_id: str | None) -> Violation:
    return Violation(rule, str(event), event.at, job_id)
