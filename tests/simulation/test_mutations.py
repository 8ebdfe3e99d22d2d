"""The simulation finds bugs: each of these, put back into the engine, is noticed by the rule that is there for it."""

from contextlib import ExitStack

import pytest
from simulated.mutations import MUTATIONS, SEEDS, Mutation
from simulated.world import simulate

DRAIN_SECONDS = 60
"""Some bugs keep jobs for ever, and none is noticed by that."""


@pytest.mark.timeout(600)  # what only a late seed notices takes its time
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_bug_is_noticed(mutation: Mutation) -> None:
    assert any(notices(mutation, seed) for seed in range(1, SEEDS + 1)), f"not within {SEEDS} seeds"


def notices(mutation: Mutation, seed: int) -> bool:
    with ExitStack() as stack:
        mutation.put_in(stack)
        run = simulate(seed, mutation.profile, drain_seconds=DRAIN_SECONDS)
    return any(violation.rule.startswith(mutation.noticed_by) for violation in run.violations)
