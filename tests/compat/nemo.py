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
from tempfile import TemporaryDirectory
from typing import Any

import pytest

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = HERE.parent.parent / ".cache" / "nemo-venv"
INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 240
COMMON = {"LANG": "C.UTF-8", "NO_PROXY": "*"}


@dataclass(frozen=True)
class Nemo:
    """The SDK and the CLI, aimed at one server, at home in one directory."""

    programs: "Programs"
    home: Path
    base_url: str

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with the SDK. Its exit status and what it printed are the caller's to judge."""
        return self._run(*arguments)

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a `nemo` command. Its exit status and what it printed are the caller's to judge."""
        return self._run(self.programs.directory / "nemo", *arguments)

    def answer(self, *arguments: str | Path) -> Any:
        """What a `nemo` command that must succeed printed as JSON."""
        done = self.cli(*arguments, "-f", "json")
        assert done.returncode == 0, f"nemo {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def _run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # Little else of our environment: no login, context or proxy of the person who runs the tests.
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.programs.directory}:{os.environ['PATH']}",
            "COLUMNS": "200",
            "NMP_BASE_URL": self.base_url,
            **COMMON,
        }
        return self.programs.run([str(each) for each in arguments], environment, self.home)


class Programs:
    """The peer's Python programs, which start quickly because one process has loaded what all of them need."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = subprocess.Popen(
            [directory / "python", HERE / "preloaded.py"],
            env=COMMON,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: list[str], environment: dict[str, str], directory: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments, the first a script or `-m`; what became of it."""
        with TemporaryDirectory() as place:
            output = [Path(place, name) for name in ("stdout", "stderr")]
            request = {
                "arguments": arguments,
                "environment": environment,
                "directory": str(directory),
                "output": [str(path) for path in output],
                "timeout_s": RUN_TIMEOUT_S,
            }
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in output))

    def close(self) -> None:
        """End the process that has loaded everything."""
        self._process.communicate()


def installed_programs() -> Programs:
    """`python` and `nemo`, after building the environment if the pins have changed since.

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
    return Programs(ENVIRONMENT / "bin")


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
