"""Ids and sequence numbers: unique, and in the order of creation."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from random import Random

from jobqueue.clock import Identifiers

NOW = datetime(2026, 2, 2, 5, 30, tzinfo=UTC)
MANY = 10_000


def test_sequence_numbers_increase_though_time_stands_still_or_goes_back() -> None:
    identifiers = Identifiers(Random(1))
    moments = [*[NOW] * MANY, NOW - timedelta(seconds=1), NOW + timedelta(milliseconds=1)]

    numbers = [identifiers.seq(moment) for moment in moments]

    assert numbers == sorted(set(numbers))


def test_a_sequence_number_is_never_before_its_moment_and_fits_64_bits() -> None:
    assert Identifiers(Random(1)).seq(NOW) >= NOW.timestamp() * 1_000_000
    assert Identifiers(Random(1)).seq(datetime(9999, 12, 31, tzinfo=UTC)) < 2**63


def test_the_numbers_of_two_processes_seldom_meet() -> None:
    """Lists keep those that do meet on one page."""
    one, other = Identifiers(Random(1)), Identifiers(Random(2))

    moments = [NOW + timedelta(milliseconds=number) for number in range(1_000)]

    assert sum(one.seq(moment) == other.seq(moment) for moment in moments) < 20


def test_ids_of_one_second_sort_as_they_were_made_and_none_is_made_twice() -> None:
    identifiers = Identifiers(Random(7))

    ids = [identifiers.job_id(NOW) for _ in range(MANY)]

    assert ids == sorted(set(ids))
    assert all(re.fullmatch("[0-9a-f]{24}", job_id) for job_id in ids)
