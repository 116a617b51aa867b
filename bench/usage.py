"""What processes have used, from /proc."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


def family(roots: Iterable[int]) -> list[int]:
    """The processes `roots` and all below them."""
    return [pid for root in roots for pid in (root, *(one.pid for one in _below(root)))]


def _below(root: int) -> list[psutil.Process]:
    try:
        return psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def cpu_s(pids: Iterable[int]) -> float:
    """The seconds of CPU that these processes and their ended children have used so far.

    The scheduler's count in nanoseconds: that of the process table has steps of a hundredth of a second.
    """
    return sum(sum(_own_s(pid)) + _ended_children_s(pid) for pid in pids)


def _own_s(pid: int) -> Iterator[float]:
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            yield int(task.read_text().split()[0]) / 1e9
        except OSError:  # it ended meanwhile
            continue


def _ended_children_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS


def peak_mib(pids: Iterable[int]) -> float:
    """The most memory that any of these processes ever had."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) / 1024
