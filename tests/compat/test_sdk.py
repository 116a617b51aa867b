"""Runs the tests in `sdk/`, which speak to our server through the peer's SDK, where that SDK is installed."""

from pathlib import Path

import pytest

from tests.compat.nemo import Nemo

SUITE = Path(__file__).parent / "sdk"
TOPICS = sorted(path.stem.removeprefix("test_") for path in SUITE.glob("test_*.py"))
SHORT = ("workspaces",)


@pytest.mark.all_releases
@pytest.mark.parametrize(
    "topic", [topic if topic in SHORT else pytest.param(topic, marks=pytest.mark.long) for topic in TOPICS]
)
def test_the_sdk_works_against_our_server(nemo: Nemo, topic: str) -> None:
    files = nemo.home / "files"  # where the suite's own temporary directories go
    done = nemo.run(
        "-m", "pytest", "-c", SUITE / "pytest.ini", "--basetemp", files, SUITE / f"test_{topic}.py"
    )

    if done.returncode != 0:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)
