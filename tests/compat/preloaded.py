"""Runs programs of the peer, each in a process of its own, forked from one that has loaded the peer's packages.

Run by the interpreter of the peer's environment: loading takes seconds, and the tests run a hundred commands. A
line of JSON asks for one; its exit status is the answer.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys

# What takes so long, beside the modules that the arguments name.
import httpcore  # noqa: F401
import yaml  # noqa: F401


def become(
    arguments: list[str], environment: dict[str, str], directory: str, output: list[str], timeout_s: int
) -> None:
    """Take on what a program is started with."""
    os.setsid()
    signal.alarm(timeout_s)
    for number, path in enumerate([os.devnull, *output]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = arguments


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # the garbage collector of a child would copy what it shares with this process
    for line in iter(sys.stdin.readline, ""):
        if (child := os.fork()) == 0:
            become(**json.loads(line))
            if sys.argv[0] == "-m":
                del sys.argv[0]
                sys.path[0] = ""
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                sys.path[0] = os.path.dirname(sys.argv[0])  # noqa: PTH120 -- as the interpreter does
                runpy.run_path(sys.argv[0], run_name="__main__")
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 -- the answer


if __name__ == "__main__":
    main()
