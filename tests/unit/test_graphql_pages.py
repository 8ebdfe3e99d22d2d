"""One page out of several: whatever the states of jobs are, nothing is missed between two pages."""

from __future__ import annotations

from jobqueue.api.cursor import encode_cursor
from jobqueue.api.graphql.context import merge
from jobqueue.api.graphql.types import JobConnection
from jobqueue.job import Job, JobId
from jobqueue.repository import Page


def page(*seqs: int, ends: int | None = None) -> Page:
    return Page([Job(id=JobId(f"job-{seq}"), seq=seq) for seq in seqs], ends)


def seqs(merged: Page) -> list[int]:
    return [job.seq for job in merged.jobs]


def test_the_newest_come_first_and_the_page_ends_where_the_next_begins() -> None:
    merged = merge([page(9, 5, 3), page(8, 4)], limit=3)

    assert (seqs(merged), merged.next_before) == ([9, 8, 5], 5)


def test_all_that_fits_is_the_last_page() -> None:
    merged = merge([page(9, 3), page(8)], limit=3)

    assert (seqs(merged), merged.next_before) == ([9, 8, 3], None)


def test_behind_the_end_of_any_page_jobs_may_be_missing_so_the_merged_one_ends_there() -> None:
    """The first ended early at 5, so between 5 and 1 there may be more of its jobs: 4 and 2 must wait."""
    merged = merge([page(9, 5, ends=5), page(8, 4, 2, ends=1)], limit=10)

    assert (seqs(merged), merged.next_before) == ([9, 8, 5], 5)


def test_a_page_that_found_nothing_in_its_time_still_says_where_to_go_on() -> None:
    merged = merge([page(ends=6), page(8, 4)], limit=10)

    assert (seqs(merged), merged.next_before) == ([8], 6)
    empty = JobConnection.of(merge([page(ends=6), page()], limit=10))
    assert empty.nodes == []
    assert (empty.page_info.has_next_page, empty.page_info.end_cursor) == (True, encode_cursor(6))


def test_jobs_that_share_a_number_stay_on_one_page() -> None:
    merged = merge([page(9, 5), page(5, 4)], limit=2)

    assert (seqs(merged), merged.next_before) == ([9, 5, 5], 5)


def test_the_last_page_has_an_end_too_but_nothing_behind_it() -> None:
    info = JobConnection.of(page(9, 5)).page_info

    assert (info.has_next_page, info.start_cursor, info.end_cursor) == (False, encode_cursor(9), encode_cursor(5))
