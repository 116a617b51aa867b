"""The peer's own SDK and CLI, unmodified, as somebody runs them."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.compat.releases import HERE, Release, installed

RUN_TIMEOUT_S = 240
COMMON = {"LANG": "C.UTF-8", "NO_PROXY": "*"}


@dataclass(frozen=True)
class Nemo:
    """The SDK and the CLI, aimed at one server, at home in one directory."""

    programs: "Programs"
    home: Path
    base_url: str
    access_token: str = ""

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with the SDK. Its exit status and what it printed are the caller's to judge."""
        return self._run(*arguments)

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a `nemo` command. Its exit status and what it printed are the caller's to judge."""
        return self._run(self.programs.directory / self.programs.release.command, *arguments)

    def refused(self, *arguments: str | Path) -> str:
        """What a `nemo` command printed that the server must refuse, in one line."""
        done = self.cli(*arguments)
        assert done.returncode == self.programs.release.refused, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

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
            self.programs.release.base_url: self.base_url,
            **({"NMP_ACCESS_TOKEN": self.access_token} if self.access_token else {}),
            **COMMON,
        }
        return self.programs.run([str(each) for each in arguments], environment, self.home)


class Programs:
    """The peer's Python programs, which start quickly because one process has loaded what all of them need."""

    def __init__(self, release: Release) -> None:
        self.release, self.directory = release, installed(release)
        self._process = subprocess.Popen(
            [self.directory / "python", HERE / "preloaded.py", *release.loads],
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
