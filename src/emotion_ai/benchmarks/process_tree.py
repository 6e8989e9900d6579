"""CPU time and memory of a process with all that it starts; needs /proc, as Linux has it."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.1
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Usage:
    """CPU seconds of all processes, and the most memory in MiB that they took together.

    Memory that processes share counts once (proportional set size).
    """

    seconds: float
    memory: float


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    started: int
    seconds: float


def tree_usage(process: "subprocess.Popen[bytes]") -> Usage:
    """Waits for a process; what it and those that it starts use is looked up several times a second."""
    members = {process.pid}
    seconds: dict[tuple[int, int], float] = {}
    peak = 0
    while process.poll() is None:
        found = list(_processes())
        while more := {one.pid for one in found if one.parent in members} - members:
            members |= more
        own = [one for one in found if one.pid in members]  # also those whose parent has ended since
        seconds |= {(one.pid, one.started): one.seconds for one in own}
        peak = max(peak, sum(_memory(one.pid) for one in own))
        time.sleep(_INTERVAL)
    return Usage(sum(seconds.values()), peak / 1024)


def _processes() -> Iterator[_Process]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        user, system = int(fields[11]), int(fields[12])
        yield _Process(int(path.parent.name), int(fields[1]), int(fields[19]), (user + system) / _TICKS)


def _memory(pid: int) -> int:
    """KiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
