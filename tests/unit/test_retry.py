from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from jobqueue.job import LAST_INSTANT, Backoff
from jobqueue.retry import BackoffPolicy, delay_seconds, next_run_at

NOW = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)


class Fixed(Random):
    """Chance that always says the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


@pytest.mark.parametrize(
    ("attempt", "chance", "expected"),
    [
        (1, 0.0, 0.5),  # full 1 * 2**0 = 1;  half of it is fixed: 0.5
        (1, 0.5, 0.75),  # 0.5 + 0.5 * 0.5
        (2, 0.0, 1.0),  # full 1 * 2**1 = 2;  1 + 0
        (2, 1.0, 2.0),  # 1 + 1 * 1
        (4, 0.25, 5.0),  # full 1 * 2**3 = 8;  4 + 0.25 * 4
        (5, 0.0, 5.0),  # full 1 * 2**4 = 16, capped to 10;  5 + 0
        (5, 1.0, 10.0),  # 5 + 1 * 5: never more than the cap
        (100, 1.0, 10.0),  # 2**99 seconds would be the end of time
        (0, 0.0, 0.5),  # an attempt before the first counts as the first
    ],
)
def test_the_delay_doubles_with_each_attempt_up_to_the_cap_and_half_of_it_is_chance(
    attempt: int, chance: float, expected: float
) -> None:
    policy = BackoffPolicy(base_seconds=1.0, max_seconds=10.0)

    assert delay_seconds(attempt, policy, random=Fixed(chance)) == pytest.approx(expected)


def test_every_delay_lies_between_half_of_its_step_and_the_whole() -> None:
    random = Random(7)
    for _ in range(5_000):
        policy = BackoffPolicy(base_seconds=random.uniform(0, 100), max_seconds=random.uniform(100, 10_000))
        attempt = random.randint(1, 100)
        step = min(policy.max_seconds, policy.base_seconds * 2 ** (attempt - 1))

        delay = delay_seconds(attempt, policy, random=random)

        assert step / 2 <= delay <= step


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    random, policy = Random(7), BackoffPolicy()

    delays = {next_run_at(NOW, 5, policy, random=random) for _ in range(100)}

    assert len(delays) > 90  # 8 seconds of chance, in milliseconds: 100 draws from 8,000 hardly ever meet


def test_without_a_base_a_job_runs_again_at_once() -> None:
    policy = BackoffPolicy(base_seconds=0.0, max_seconds=0.0)

    assert next_run_at(NOW, 3, policy, random=Random(7)) == NOW


def test_the_next_run_is_a_time_that_bson_keeps() -> None:
    # 1 * 2**0 / 2 + 1/3 * 1/2 = 0.666666... seconds: cut to 666 ms
    run_at = next_run_at(NOW, 1, BackoffPolicy(), random=Fixed(1 / 3))

    assert run_at == NOW + timedelta(milliseconds=666)


def test_the_next_run_is_never_beyond_the_last_instant_that_can_be_stored() -> None:
    late = LAST_INSTANT - timedelta(seconds=1)

    assert next_run_at(late, 60, BackoffPolicy(max_seconds=86_400.0), random=Fixed(1.0)) == LAST_INSTANT


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, (1, 10)),
        (Backoff(base_seconds=2), (2, 10)),
        (Backoff(max_seconds=5), (1, 5)),
        (Backoff(base_seconds=2, max_seconds=5), (2, 5)),
        (Backoff(base_seconds=60), (60, 60)),  # a first delay beyond the longest one raises that
        (Backoff(max_seconds=0.5), (0.5, 0.5)),
        (Backoff(base_seconds=0, max_seconds=0), (0, 0)),
        # What nobody can post, but type into mongosh:
        (Backoff(base_seconds=-5), (0, 10)),
        (Backoff(base_seconds=5, max_seconds=2), (2, 2)),
        (Backoff(base_seconds=float("nan")), (0, 10)),
        (Backoff(max_seconds=float("inf")), (1, 100 * 365 * 86_400)),
    ],
)
def test_a_job_may_have_a_back_off_of_its_own(own: Backoff | None, expected: tuple[float, float]) -> None:
    policy = BackoffPolicy(base_seconds=1, max_seconds=10).with_own(own)

    assert (policy.base_seconds, policy.max_seconds) == expected


@pytest.mark.parametrize(("base", "longest"), [(-1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_policy_that_cannot_be_is_refused(base: float, longest: float) -> None:
    with pytest.raises(ValueError, match="back-off"):
        BackoffPolicy(base, longest)
