"""A test that needs a program is run where there is one; else its absence is told, or is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = """
import pytest

@pytest.mark.needs("python3", package="python3")
def test_a(): pass

@pytest.mark.needs("no-such-program", package="none")
@pytest.mark.parametrize("number", [1, 2])
def test_b(number): pass
"""
LINE = "missing: no-such-program (Debian package none), 2 tests not run"


@pytest.mark.parametrize(
    ("require", "status", "summary"), [("", 0, "1 passed, 2 skipped"), ("all", 1, "1 passed, 2 errors")]
)
def test_what_is_missing_is_told(tmp_path: Path, require: str, status: int, summary: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "tests.support.needs", "--rootdir", ".", ".")

    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "REQUIRE": require},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == status, done.stdout
    assert LINE in done.stdout
    assert summary in done.stdout
