"""What an operation weighs, and that weighing a hostile one takes no time."""

from __future__ import annotations

import pytest
from graphql import FragmentDefinitionNode, OperationDefinitionNode, get_introspection_query, parse
from graphql.validation import validate

from jobqueue.api.graphql.limits import (
    MAX_ALIASES,
    MAX_BULKS,
    MAX_COPIES,
    MAX_DEPTH,
    MAX_JOBS,
    MAX_LISTS,
    MAX_QUERY_LENGTH,
    MAX_TOKENS,
    Scales,
    Weight,
    WeightLimit,
    items_limit,
)
from jobqueue.api.graphql.page import OPERATIONS
from jobqueue.api.graphql.requests import GraphQLBody
from jobqueue.api.graphql.schema import SCHEMA
from jobqueue.errors import InvalidJob


def weigh(document: str) -> Weight:
    definitions = parse(document).definitions
    scales = Scales(each for each in definitions if isinstance(each, FragmentDefinitionNode))
    (operation,) = [each for each in definitions if isinstance(each, OperationDefinitionNode)]
    return scales.weigh(operation.selection_set)


@pytest.mark.parametrize(
    ("document", "weight"),
    [
        ("{ Jobs { id } }", Weight(depth=2, aliases=0, lists=1)),
        ("{ a: Jobs { b: id } c: Job { errors { at } } }", Weight(depth=3, aliases=3, lists=1)),
        ("{ ... { Jobs { ... on Job { id } } } }", Weight(depth=2, aliases=0, lists=1)),
        ("{ ...F ...F } fragment F on Query { a: Jobs { id } }", Weight(depth=2, aliases=2, lists=2)),
        ("{ __schema { types { fields { name } } } }", Weight()),
        ("{ a: __typename }", Weight(aliases=1)),
        ("{ ...Nobody }", Weight()),
        ("mutation { a: EnqueueMany { b: accepted } }", Weight(depth=2, aliases=2, bulks=1, copies=1)),
        ("{ Jobs { a: payload payload b: id } }", Weight(depth=2, aliases=2, lists=1, copies=1)),
        ("{ Job { ...F ... { ...F } } } fragment F on Job { a: result }", Weight(depth=2, aliases=2, copies=2)),
        ("{ ...F } fragment F on Query { Jobs { id } ...F }", Weight(depth=2, lists=1)),
    ],
)
def test_an_operation_weighs_what_it_asks_for_with_its_fragments_spread_out(document: str, weight: Weight) -> None:
    assert weigh(document) == weight


def test_fragments_that_double_a_hundred_times_are_weighed_at_once() -> None:
    doubling = " ".join(f"fragment F{i} on Query {{ ...F{i + 1} ...F{i + 1} }}" for i in range(100))

    weight = weigh(f"{{ ...F0 }} {doubling} fragment F100 on Query {{ a: Jobs {{ id }} }}")

    assert weight == Weight(depth=2, aliases=2**100, lists=2**100)


def copies(number: int) -> str:
    return " ".join(f"a{i}: payload" for i in range(number))


LEVELS = "errors { " * 20 + "at" + " }" * 20
TOO_MUCH = {
    f"{MAX_DEPTH} levels": "{ Jobs { " + LEVELS + " } }",
    f"{MAX_ALIASES} aliases": "{" + " ".join(f"a{i}: __typename" for i in range(MAX_ALIASES + 1)) + "}",
    f"{MAX_LISTS} of the fields": "{" + " ".join(f"a{i}: JobStatus {{ failed }}" for i in range(MAX_LISTS + 1)) + "}",
    f"{MAX_BULKS} of the fields EnqueueMany": "mutation { EnqueueMany(jobs: []) { accepted } ...F }"
    " fragment F on Mutation { a: EnqueueMany(jobs: []) { accepted } }",
    f"{MAX_COPIES} large fields under other names": "{ Jobs {" + copies(MAX_COPIES + 1) + "} }",
}


@pytest.mark.parametrize("limit", TOO_MUCH)
async def test_an_operation_beyond_a_limit_is_refused_and_told_which(limit: str) -> None:
    result = await SCHEMA.execute(TOO_MUCH[limit])

    assert result.errors
    assert result.data is None
    (error,) = [each for each in result.errors if limit in each.message]
    assert error.extensions == {"code": "LIMIT_EXCEEDED"}


@pytest.mark.parametrize(
    "document",
    [
        "{ jobsConnection {" + " ".join(f"a{i}: nodes {{ payload }}" for i in range(MAX_COPIES + 1)) + "} }",
        "{ jobsConnection {" + " ".join(f"nodes {{ a{i}: payload }}" for i in range(MAX_COPIES + 1)) + "} }",
        "mutation { EnqueueMany(jobs: []) { items {" + " ".join(f"a{i}: id" for i in range(MAX_COPIES + 1)) + "} } }",
    ],
    ids=["what holds them", "selections that become one", "a thousand ids"],
)
async def test_there_is_no_way_around_the_limit_of_copies(document: str) -> None:
    result = await SCHEMA.execute(document)

    assert result.errors
    assert f"{MAX_COPIES} large fields under other names" in result.errors[0].message


def test_large_fields_under_their_own_names_and_a_few_others_are_within_the_limits() -> None:
    whole = " ".join(f'a{i}: Job(id: "{i}") {{ payload result errors {{ message }} }}' for i in range(MAX_ALIASES))

    for document in (f"{{ {whole} }}", "{ Jobs {" + copies(MAX_COPIES) + "} }"):
        assert validate(SCHEMA._schema, parse(document), [WeightLimit]) == []


MANY = "mutation ($jobs: [NewJob!]!) { EnqueueMany(jobs: $jobs) { accepted } }"


async def test_more_jobs_than_others_can_wait_for_are_refused_before_they_are_read() -> None:
    result = await SCHEMA.execute(MANY, {"jobs": [None] * (MAX_JOBS + 1)})

    assert result.errors
    (error,) = result.errors
    assert error.message == "at most 1000 jobs are taken; POST /jobs/bulk takes 10000"
    assert error.extensions == {"code": "LIMIT_EXCEEDED"}


async def test_as_many_jobs_as_others_can_wait_for_are_read() -> None:
    result = await SCHEMA.execute(MANY, {"jobs": [None] * MAX_JOBS})

    assert result.errors
    assert "Expected" in result.errors[0].message


def test_a_list_that_is_no_list_of_jobs_may_be_longer() -> None:
    document = parse('mutation ($list: JSON) { Enqueue(task: "a", payload: $list) { id } }')

    assert validate(SCHEMA._schema, document, [items_limit({"list": [7] * (MAX_JOBS + 1)})]) == []


def test_a_query_that_is_longer_than_any_that_people_write_is_refused_unread() -> None:
    GraphQLBody.read({"query": "#" * MAX_QUERY_LENGTH})

    with pytest.raises(InvalidJob, match=f"at most {MAX_QUERY_LENGTH} characters"):
        GraphQLBody.read({"query": "#" * (MAX_QUERY_LENGTH + 1)})


async def test_a_document_of_too_many_tokens_is_refused() -> None:
    result = await SCHEMA.execute("{" + " __typename" * MAX_TOKENS + "}")

    assert result.errors
    assert str(MAX_TOKENS) in result.errors[0].message


@pytest.mark.parametrize(
    "document",
    [
        "{" + "Jobs {" * 300 + "id" + "}" * 301,
        "{ Job(id: " + "[" * 300 + "]" * 300 + ") { id } }",
        "{" + "... {" * 300 + "__typename" + "}" * 301,
    ],
    ids=["fields", "values", "fragments"],
)
async def test_a_document_that_is_nested_without_end_is_an_error_like_any_other(document: str) -> None:
    result = await SCHEMA.execute(document)

    assert result.errors
    assert result.errors[0].extensions
    assert result.errors[0].extensions["code"] in ("BAD_INPUT", "LIMIT_EXCEEDED")


def test_the_ready_operations_and_introspection_are_within_the_limits() -> None:
    for document in (OPERATIONS.read_text(encoding="utf-8"), get_introspection_query()):
        assert validate(SCHEMA._schema, parse(document, max_tokens=MAX_TOKENS), [WeightLimit]) == []
