"""The process table, asked for what a job or a server has started by its command lines: our rows and marks may err.

Imports nothing beyond the standard library: the tests inside the peer's environment use it too.
"""

import sys
import uuid
from pathlib import Path


def unique_seconds() -> str:
    """A time that nobody else sleeps for: `sleep` with it is told from every other process of the machine."""
    return str(10**9 + uuid.uuid4().int % 10**12)


def living(word: str) -> list[int]:
    """Every process with `word` on its command line, whoever started it and whatever it has done to its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()  # empty for a zombie: of that only the entry is left
        except OSError:
            continue  # it has ended meanwhile
        if word.encode() in line:
            found.append(int(path.parent.name))
    return found


def stubborn(word: str) -> str:
    """A script that prints "ready" and then goes on whatever it is told, and so does what it has started.

    A shell that answers SIGTERM with a line; a child; and a grandchild that has left its group, its session, its
    parent and its environment. `word` comes from `unique_seconds`; at least FEWEST of their command lines have it.
    """
    return (
        f"trap 'echo not yet' TERM; "
        f"(trap '' TERM; sleep {word}; :) & "
        f"(trap '' TERM; env -i setsid sh -c 'trap \"\" TERM; sleep {word}; :' &) ; "
        f"echo ready; while :; do sleep {word}; done"
    )


FEWEST = 7
"""The keeper, the script with its child and that one's, the grandchild with its own, and the script's own pause."""


def stubborn_server(word: str) -> list[str]:
    """The command of a deployment that serves, with a child; both ignore SIGTERM and have `word` on their lines."""
    serve = (
        "import sys, http.server as it; "
        "it.test(it.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
    )
    script = f"trap '' TERM; sleep {word} & exec \"$@\""
    return ["sh", "-c", script, "sh", sys.executable, "-c", serve, "{port}", word]
