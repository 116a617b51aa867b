"""The peer's own SDK and CLI, unmodified, in an environment of their own.

They are no dependency of ours, not even for development: their environment is built on first use and kept.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = HERE.parent.parent / ".cache" / "nemo-venv"
INSTALL_TIMEOUT_S = 240
RUN_TIMEOUT_S = 240


@dataclass(frozen=True)
class Nemo:
    """The SDK and the CLI, aimed at one server, at home in one directory."""

    programs: Path
    home: Path
    base_url: str

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with the SDK. Its exit status and what it printed are the caller's to judge."""
        return self._run("python", *arguments)

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a `nemo` command. Its exit status and what it printed are the caller's to judge."""
        return self._run("nemo", *arguments)

    def answer(self, *arguments: str | Path) -> Any:
        """What a `nemo` command that must succeed printed as JSON."""
        done = self.cli(*arguments, "-f", "json")
        assert done.returncode == 0, f"nemo {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def _run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # Little else of our environment: no login, context or proxy of whoever runs the tests.
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            "NO_PROXY": "*",
            "NMP_BASE_URL": self.base_url,
        }
        return subprocess.run(
            [self.programs / program, *arguments],
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )


def installed_programs() -> Path:
    """The directory of `python` and `nemo`, after building the environment if the pins have changed since.

    Fails the test run, with pip's own words, if that is not possible: a skipped promise is a broken one.
    """
    pins, stamp = REQUIREMENTS.read_text(), ENVIRONMENT / "installed.txt"
    with _sole_installer():
        if not stamp.is_file() or stamp.read_text() != pins:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            _execute(sys.executable, "-m", "venv", ENVIRONMENT)
            _execute(
                ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps",
                "--disable-pip-version-check", "-r", REQUIREMENTS,
            )  # fmt: skip
            stamp.write_text(pins)
    return ENVIRONMENT / "bin"


@contextmanager
def _sole_installer() -> Iterator[None]:
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with ENVIRONMENT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _execute(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        why = f"nothing came of it within {INSTALL_TIMEOUT_S} s"
    except subprocess.CalledProcessError as error:
        why = f"{error.stdout}{error.stderr}".strip()
    else:
        return
    pytest.fail(
        "The peer's SDK could not be installed, so nothing is known about our compatibility with it. "
        f"It needs the package index of this machine's pip. `{' '.join(map(str, command))}` said:\n{why}",
        pytrace=False,
    )
