"""Python programs of the product as processes forked from one that has loaded their packages.

Loading takes two seconds of CPU, and the tests start more than a hundred of them. What a program does after that is
its own: arguments, environment, session, signals, output.
"""

import atexit
import ctypes
import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec

from app.api.application import RESOURCES
from app.cli import NOUNS
from tests.support.deadlines import DEADLINE_S

_LOADED = (
    "billiard.common", "celery.bin.celery", "flower.command", "gunicorn.app.wsgiapp", "gunicorn.workers.gthread",
    "app.api.application", "app.cleanup.engine", "app.cli.client.database", "tests.support.preloaded",
    *(f"app.api.{name}" for name in RESOURCES),
    *(f"app.cli.{noun}" for noun in NOUNS),
)  # fmt: skip
"""What the programs import. None of it reads the environment when it is imported, but for `billiard.common`."""

_PR_SET_PDEATHSIG = 1


class Preloaded:
    """A running program, with the methods of `subprocess.Popen` that the tests use.

    It reads from `terminal`, which sends it Ctrl-C if it is one.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Path,
        errors: Path | None = None,
        terminal: Path = Path(os.devnull),
    ) -> None:
        ours, its = _fork_server().Pipe(duplex=False)
        with ours, its:
            arguments = (list(argv), dict(env), cwd, (terminal, output, errors or output), its)
            self._process = _fork_server().Process(target=_become, args=arguments)
            self._process.start()
            assert self._process.pid
            self.pid = self._process.pid
            its.close()
            ours.recv()  # it leads a session from here on, and can be killed with its children

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LOADED))
    return context


def _become(
    argv: list[str], env: dict[str, str], directory: Path, files: tuple[Path, Path, Path], told: Connection
) -> None:
    """Take on what a program is started with, and run it."""
    gc.freeze()  # the garbage collector would copy what is shared with the process that has loaded it
    os.setsid()
    # Also where the tests run in the background, for which a shell lets them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    terminal, output, errors = files
    # The first terminal that the leader of a session opens is the one that controls it.
    with terminal.open("rb") as given, output.open("ab") as out, errors.open("ab") as err:
        for number, file in enumerate((given, out, err)):
            os.dup2(file.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- multiprocessing has put another in its place
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    with told:
        told.send(None)
    sys.argv = argv
    if plug_ins := [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]:
        _plug_in(plug_ins)
    importlib.reload(sys.modules["billiard.common"])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        if argv[:2] == ["python", "-m"]:
            sys.argv = argv[2:]
            sys.modules.pop(argv[2], None)  # runpy would complain
            runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(Path(sys.executable).with_name(argv[0])), run_name="__main__")
    finally:
        atexit._run_exitfuncs()


def _plug_in(directories: list[str]) -> None:
    """Do what a new Python does with directories of PYTHONPATH: its `site`, and fsspec when it is imported."""
    sys.path[1:1] = directories
    fsspec.process_entries()
    for directory in directories:
        if (customization := Path(directory, "sitecustomize.py")).exists():
            runpy.run_path(str(customization))


def run_preloaded(*argv: str, env: Mapping[str, str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run `python`, `-m` and a module with its arguments to the end, as `subprocess.run` would."""
    with TemporaryDirectory() as place:
        output, errors = Path(place, "stdout"), Path(place, "stderr")
        process = Preloaded(argv, env=env, cwd=cwd, output=output, errors=errors)
        status = process.wait(DEADLINE_S)
        return subprocess.CompletedProcess(argv, status, output.read_text(), errors.read_text())


def start_preloaded(line: str, *, env: Mapping[str, str], cwd: Path, output: Path) -> Preloaded:
    """Run the one Python program that a line of the Procfile starts, as a shell would."""
    script = f"set -- {line.removeprefix('exec ')}\nprintf '%s\\0' \"$@\""
    shell = subprocess.run(
        ["/bin/sh", "-c", script], env=env, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True
    )
    argv = shell.stdout.split("\0")[:-1]
    while argv[:2] == ["env", "-u"]:
        env = {name: value for name, value in env.items() if name != argv[2]}
        argv = argv[3:]
    return Preloaded(argv, env=env, cwd=cwd, output=output)
