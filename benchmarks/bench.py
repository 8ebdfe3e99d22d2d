"""What every benchmark is given: the server, where its figures go, and how much there is to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.database import Database
from benchmarks.results import Line, Results


@dataclass(frozen=True, slots=True)
class Bench:
    """One benchmark's run. `short` is for seeing that it works: its figures mean little."""

    name: str
    database: Database
    results: Results
    repeats: int
    short: bool

    def size(self, full: int, short: int) -> int:
        """How many, depending on how serious this run is."""
        return short if self.short else full

    def rounds(self) -> Iterator[int]:
        """The repeats. What is compared is measured in turns within each, never all of one before the other."""
        yield from range(self.repeats)

    @contextmanager
    def case(self, case: str, *, repeat: int = 0) -> Iterator[Line]:
        """A line of the results for this case."""
        with self.results.case(self.name, case, repeat=repeat) as line:
            yield line
