import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import mutations
from simulated.scenario import Profile
from simulated.world import simulate

SUPPORT = Path(__file__).parents[1] / "support"
SEEDS = range(1, 101)
SPECIAL = {
    name: profile
    for name in dir(mutations)
    if name.isupper() and isinstance(profile := getattr(mutations, name), Profile)
}
SPECIAL_SEEDS = range(1, 9)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed: int) -> None:
    run = simulate(seed)

    assert not run.violations, run.report()


@pytest.mark.parametrize("profile", SPECIAL.values(), ids=SPECIAL.keys())
def test_no_promise_is_broken_where_one_kind_of_trouble_prevails(profile: Profile) -> None:
    for seed in SPECIAL_SEEDS:
        run = simulate(seed, profile)
        assert not run.violations, run.report()


def test_a_seed_replays_exactly_whatever_strings_hash_to() -> None:
    told = {hash_seed: replay(7, hash_seed) for hash_seed in ("1", "2")}

    assert told["1"] == told["2"]
    assert "no promise broken" in told["1"]


def replay(seed: int, hash_seed: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "simulated.run", "--seed", str(seed)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
