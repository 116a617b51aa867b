"""What tests measure, printed at the end of the run: of a test that passes pytest shows nothing else."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

_FIGURE = "figure"
_lines: list[str] = []

Tell = Callable[[str], None]
Within = Callable[[str, float, float], None]
Flat = Callable[[str, float, float, float], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Has a line printed at the end of the run."""
    properties = request.node.user_properties
    return lambda line: properties.append((_FIGURE, line))


@pytest.fixture
def within(tell: Tell) -> Within:
    """Tells how long something took, beside the bound that an idle machine keeps: no slow machine fails a test."""

    def check(what: str, took_s: float, bound_s: float) -> None:
        tell(
            f"{took_s:7.2f} s of at most {bound_s:5.1f} s{'' if took_s <= bound_s else ', EXCEEDED'}  {what}"
        )

    return check


@pytest.fixture
def flat(tell: Tell) -> Flat:
    """Asserts that the peak of a process's memory has grown by no more than a bound, and tells all of it."""

    def check(what: str, before_mib: float, after_mib: float, bound_mib: float) -> None:
        grown = after_mib - before_mib
        tell(
            f"{grown:7.0f} MiB of at most {bound_mib:3.0f} MiB  {what}: peak {before_mib:.0f} → {after_mib:.0f} MiB"
        )
        assert grown <= bound_mib, what

    return check


def peak_mib(pids: Iterable[int]) -> float:
    """The most memory that any of these processes ever had.

    Not getrusage: that begins with the peak of the parent.
    """
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) / 1024


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect them: by way of the reports, because pytest-xdist brings those from every process."""
    if report.when == "teardown":
        _lines.extend(str(line) for name, line in report.user_properties if name == _FIGURE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    if _lines:
        terminalreporter.section("measured")
        for line in _lines:
            terminalreporter.line(line)
