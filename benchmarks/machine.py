"""What figures depend on beside the code: versions, cores, other load, and time that a host withholds."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("jobqueue", "aiohttp", "motor", "pymongo", "pydantic", "uvloop", "secantusdb")
FSYNCS = 30


def environment() -> dict[str, Any]:
    """What stays the same during a run."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release()}",
        "fsync_ms": fsync_ms(),
    }


@dataclass(frozen=True, slots=True)
class Conditions:
    """How busy the machine is at one moment."""

    load: float
    stolen: int
    busy: int

    @classmethod
    def now(cls) -> Conditions:
        ticks = _cpu_ticks()
        return cls(os.getloadavg()[0], stolen=ticks[7], busy=sum(ticks) - ticks[3] - ticks[4])

    def until(self, later: Conditions) -> dict[str, float]:
        """Load at both moments, and which share of the time that was asked for the host withheld in between."""
        steal = 100 * (later.stolen - self.stolen) / max(1, later.busy - self.busy)
        return {"load_before": round(self.load, 2), "load_after": round(later.load, 2), "steal_pct": round(steal, 1)}


def process_cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of a process and of its children that ended; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(pid: int) -> float:
    """The same, of a process and of those that it started and that live."""
    started = [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _parent_of(stat) == pid]
    return sum(process_cpu_seconds(each) for each in (pid, *started))


def _parent_of(stat: Path) -> int | None:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def resident_mb(pid: int) -> float:
    """Memory that a process holds; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


def fsync_ms() -> float:
    """Median of some appends of 4 KiB with fdatasync, where the embedded server would keep its data."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return round(statistics.median(took) * 1000, 3)


def _cpu_ticks() -> list[int]:
    try:
        with open("/proc/stat") as file:
            return [int(number) for number in file.readline().split()[1:9]]
    except OSError:
        return [0] * 8


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
