"""The releases of the peer that our server is tried with, each in an environment of its own, and where its Python is.

They are no dependency of ours, not even for development: an environment is built on first use and kept.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.needs import Missing

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENTS = HERE.parent.parent / ".cache" / "clients"
INSTALL_TIMEOUT_S = 600


@dataclass(frozen=True)
class Release:
    """One release of the peer's SDK and CLI."""

    name: str
    packages: tuple[str, ...]
    python: tuple[int, int] = (3, 12)
    """The oldest that it runs on."""
    command: str = "nemo"
    base_url: str = "NMP_BASE_URL"
    """The variable that has the address of the server."""
    loads: tuple[str, ...] = ("nemo_platform.cli.app", "nemo_platform.ui.prompts")
    """The modules that take long to load."""
    refused: int = 3
    """The exit status of the command if the server has refused."""


OLDEST = Release("0.3.0", ("nemo-platform==0.3.0", "nemo-platform-plugin==0.3.0"), python=(3, 11), refused=1)
NEWEST = Release("0.6.0", ("nemo-platform==0.6.0",))
BETWEEN = (
    Release("0.4.0", ("nemo-platform==0.4.0",), refused=1),
    Release("0.5.0", ("nemo-platform==0.5.0",)),
)
HELIX = Release(
    "helix-0.8.1",
    ("nemo-helix==0.8.1",),
    command="nhx",
    base_url="NHX_BASE_URL",
    loads=("nemo_helix_ext.cli.app",),
)


def as_parameter(release: Release, *marks: pytest.MarkDecorator) -> object:
    """The release as a parameter of a test, which is not run where there is no Python for it."""
    absent = pytest.mark.needs(_name_of(release), package=f"python{release.python[0]}.{release.python[1]}")
    is_there = interpreter(release.python) is not None
    return pytest.param(release, id=release.name, marks=marks if is_there else (*marks, absent))


def _name_of(release: Release) -> Missing:
    major, minor = release.python
    return Missing(
        f"a Python from {major}.{minor} on, for the peer's {release.name}; CLIENTS_PYTHON may name it"
    )


@cache
def interpreter(oldest: tuple[int, int]) -> str | None:
    """A Python that is new enough: ours, that of CLIENTS_PYTHON, one of the PATH or one that pyenv has installed."""
    newer = [f"python3.{minor}" for minor in range(oldest[1], 15)]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(pyenv.glob("versions/3.1[1-4].*/bin/python"))
    candidates = [os.environ.get("CLIENTS_PYTHON"), sys.executable, *map(shutil.which, newer), *installed]
    return next((str(one) for one in candidates if one and _is_new_enough(one, oldest)), None)


def _is_new_enough(candidate: str | Path, oldest: tuple[int, int]) -> bool:
    """Whether it runs, and its version will do: a shim may stand for a Python that is not there."""
    asked = f"import sys, ensurepip, venv; sys.exit(not {oldest} <= sys.version_info < (3, 14))"
    return subprocess.run([candidate, "-c", asked], capture_output=True, check=False).returncode == 0


def installed(release: Release) -> Path:
    """The directory of the release's programs, after building its environment if the pins have changed since.

    Fails the test run, with pip's own words, if that is not possible: a skipped promise is a broken one.
    """
    environment = ENVIRONMENTS / release.name
    pins = "\n".join((*release.packages, REQUIREMENTS.read_text()))
    stamp, python = environment / "installed.txt", environment / "bin" / "python"
    with _sole_installer(environment):
        if not stamp.is_file() or stamp.read_text() != pins:
            shutil.rmtree(environment, ignore_errors=True)
            _execute(
                interpreter(release.python) or sys.executable, "-m", "venv", "--without-pip", environment
            )
            _install(python, "--quiet", "--no-deps", *release.packages, "-r", str(REQUIREMENTS))
            stamp.write_text(pins)
    return environment / "bin"


@contextmanager
def _sole_installer(environment: Path) -> Iterator[None]:
    environment.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{environment}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(python: Path, *arguments: str) -> None:
    """Install packages for `python`: by uv in a sixth of the time, and where it finds none by pip.

    uv does not know from which index this machine's pip is told to install.
    """
    uv = [sys.executable, "-m", "uv", "pip", "install", "--system-certs", "--python", python, *arguments]
    if subprocess.run(uv, capture_output=True, check=False).returncode:
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile"]
        _execute(*pip, "--disable-pip-version-check", *arguments)


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
