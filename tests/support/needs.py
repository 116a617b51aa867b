"""Tests that need a program which not every machine has: `@pytest.mark.needs("redis-server", package="redis")`.

Without it they are skipped, and the last lines of the run name each program that is missing, its package and how many
tests were not run: without `chromium`, those of the console in a browser. With `REQUIRE=all` in the environment they
fail.
"""

import os
import shutil
from collections import Counter

import pytest


class Missing(str):
    """In the place of a program: what is missing, as somebody else has found out."""


_MISSING = "missing program"
_not_run: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", "needs(program, package): needs a program, which is in that Debian package"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing, or fail it."""
    for mark in item.iter_markers("needs"):
        program, package = mark.args[0], mark.kwargs["package"]
        if not isinstance(program, Missing) and shutil.which(program):
            continue
        missing = f"{program} (Debian package {package})"
        item.user_properties.append((_MISSING, missing))
        if os.environ.get("REQUIRE") == "all":
            pytest.fail(f"needs {missing}", pytrace=False)
        pytest.skip(f"needs {missing}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count them: by way of the reports, because pytest-xdist brings those from every process."""
    if report.when == "teardown":
        _not_run.update(str(program) for name, program in report.user_properties if name == _MISSING)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is missing."""
    for program, number in sorted(_not_run.items()):
        terminalreporter.line(f"missing: {program}, {number} tests not run")
