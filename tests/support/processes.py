"""Finds the processes of jobs and servers by their command lines, independently of rows and environment variables.

Imports only packages that the peer's environment has too: tests run there as well.
"""

import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

NewWord = Callable[[], str]


@pytest.fixture
def new_word() -> Iterator[NewWord]:
    """Gives durations that no other process sleeps for: they identify the processes of one test.

    After the test, also a failed one, the processes are killed: they would sleep for centuries.
    """
    words: list[str] = []

    def give() -> str:
        words.append(str(10**9 + uuid.uuid4().int % 10**12))
        return words[-1]

    yield give
    for pid in (pid for word in words for pid in living(word)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def living(word: str) -> list[int]:
    """The pids of all processes with `word` on their command line, whatever their parents and environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()  # empty for a zombie
        except OSError:
            continue  # it has ended meanwhile
        if word.encode() in line:
            found.append(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process with that pid runs; a zombie does not count."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def stubborn(word: str) -> str:
    """A script that prints "ready" and then ignores all signals that can be ignored, as do its children.

    A shell that answers SIGTERM with a line; a child; and a grandchild that has left its group, its session, its
    parent and its environment. `word` comes from `new_word`; at least FEWEST of their command lines have it.
    """
    return (
        f"trap 'echo not yet' TERM; "
        f"(trap '' TERM; sleep {word}; :) & "
        f"(trap '' TERM; env -i setsid sh -c 'trap \"\" TERM; sleep {word}; :' &) ; "
        f"echo ready; while :; do sleep {word}; done"
    )


FEWEST = 7
"""The reaper, the script with its child and that one's, the grandchild with its own, and the script's own pause."""


def stubborn_server(word: str) -> list[str]:
    """The command of a deployment that serves, with a child; both ignore SIGTERM and have `word` on their lines."""
    serve = (
        "import sys, http.server as it; "
        "it.test(it.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
    )
    script = f"trap '' TERM; sleep {word} & exec \"$@\""
    return ["sh", "-c", script, "sh", sys.executable, "-c", serve, "{port}", word]
