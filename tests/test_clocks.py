"""Clocks that tests move: what a program reads of the time, and of what it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clocks import Clock

READER = """
import sys, time
from datetime import UTC, datetime
for _ in sys.stdin:
    print(time.time(), datetime.now(UTC).timestamp(), time.monotonic(), flush=True)
"""
HOUR_S, SLOW_S = 3600, 600
"""How far the clock is moved, and less than what a slow machine may need in between."""

pytestmark = pytest.mark.needs("cc", package="gcc")


def test_a_running_programs_clock_is_moved_and_its_deadlines_are_not(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    with subprocess.Popen(
        [sys.executable, "-c", READER],
        env=clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin
        assert program.stdout

        def read() -> list[float]:
            print(file=program.stdin, flush=True)
            return [float(one) for one in program.stdout.readline().split()]

        before = read()
        clock.move(HOUR_S)
        ahead = read()
        clock.move(-HOUR_S)
        behind = read()
        program.stdin.close()

    for now in (0, 1):
        assert ahead[now] - before[now] == pytest.approx(HOUR_S, abs=SLOW_S)
        assert behind[now] - before[now] == pytest.approx(-HOUR_S, abs=SLOW_S)
    assert before[2] <= ahead[2] <= behind[2] < before[2] + SLOW_S
