"""Child processes that never outlive the program that started them."""

import ctypes
import os
import pwd
import secrets
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

HOST = "127.0.0.1"
PORTS = range(10_000, 32_768)
"""Below those that the kernel gives to clients: none of them takes one before its server does."""

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Command:
    """A program, and the signals that end it."""

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    """The signal it gets if this process dies. After SIGTERM a Celery worker without a broker hangs for ever."""

    def spawn(self, output: int | IO[bytes], *, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Start the program in its own session, with standard output and error redirected to `output`.

        On Linux the program gets its orphan signal if this process dies for any reason. The kernel ties that to the
        calling thread, which has to live as long as the child: in practice the main thread.
        """
        parent = os.getpid()

        def die_with_parent() -> None:
            if hasattr(_LIBC, "prctl"):
                _LIBC.prctl(PR_SET_PDEATHSIG, int(self.orphan_signal))
            if os.getppid() != parent:
                os._exit(1)  # the parent died before prctl took effect

        owner = pwd.getpwnam(self.user) if self.user else None
        return subprocess.Popen(
            self.argv,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self.env,
            # Another user may not be able to enter the present working directory.
            cwd="/" if owner else None,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
            # A terminal's Ctrl-C must reach only the supervisor, because Celery takes a second SIGINT for a cold stop.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- prctl has no Popen argument; it takes no lock
        )


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill the rest of the child's session and reap the child."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end(process: "subprocess.Popen[bytes]", stop_signal: signal.Signals, *, grace_s: float) -> None:
    """Send the stop signal; kill the whole group if the child has not ended within `grace_s`."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    kill_group(process)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface."""
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT of an earlier server do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of the loopback interface that is free at the moment.

    The choice is random, so that two processes that ask at the same time rarely get the same port.
    """
    while True:
        if port_is_free(port := secrets.choice(PORTS)):
            return port
