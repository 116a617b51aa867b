"""Deployments as processes beside the runtime worker."""

import contextlib
import errno
import os
import shutil
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from typing import BinaryIO

from app.config import Settings
from app.lifecycle import DeploymentStatus
from app.runtime.deployments.backends.health import health_problem
from app.runtime.deployments.backends.server_log import ServerLog
from app.runtime.deployments.contract import DeploymentSpec, InvalidDeploymentSpec, ObservedState
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.processes.process import Process
from app.runtime.processes.workdir import WorkDirectory

_HOST = "127.0.0.1"
_HEALTH_TIMEOUT_S = 2.0
_UNHEALTHY_AFTER = 3
"""Failed checks in a row after which a server that was ready is restarted."""
_LONGEST_BACKOFF_S = 60.0
_LAST_LINES = 5
_LINE_CHARS = 500
_KILL_S = 5.0
_MAY_PASS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESRCH})
"""Errors of a start that are not the fault of the command; ESRCH if its reaper was killed."""
_NAME_CHARS = 200


class SubprocessRuntime:
    """One server process: started, checked, and restarted with growing pauses when it fails."""

    def __init__(self, settings: Settings, spec: DeploymentSpec) -> None:
        self._settings, self._spec = settings, spec
        self._directory = WorkDirectory(settings, spec.id)
        self._process: Process | None = None
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._output_reader: threading.Thread | None = None
        self._port = 0
        self._crashes = 0
        self._failed_checks = 0
        self._start_at = self._started_at = 0.0
        self._why_pausing = ""
        self._was_ready = False
        self._ready_at = 0.0

    def observe(self) -> ObservedState:
        """As `Runtime.observe`."""
        if self._process is None and (waiting := self._try_to_start()):
            return waiting
        if self._process and (code := self._process.poll()) is not None:
            return self._crashed(f"the server ended with {_ending(code)}")
        return self._check()

    def _check(self) -> ObservedState:
        path = self._spec.health_path
        if problem := health_problem(_HOST, self._port, path, within_s=_HEALTH_TIMEOUT_S):
            return self._unhealthy(problem)
        self._failed_checks = 0
        now = time.monotonic()
        if not self._was_ready:
            self._was_ready, self._ready_at = True, now
        if now - self._ready_at > _LONGEST_BACKOFF_S:
            self._crashes = 0  # not sooner: a server may serve for a moment after each start
        message = f"Serving at {self._address}"
        return ObservedState(DeploymentStatus.READY, message, self._address, is_healthy=True)

    def stop(self) -> bool:
        """As `Runtime.stop`; removes its directory too."""
        if self._process:
            if self._process.poll() is None:
                self._process.terminate()
                return False
            self._close_process()
        if not kill_leaked_processes(self._spec.id, within_s=1):
            return False
        self._directory.discard()
        return True

    def kill(self) -> None:
        """As `Runtime.kill`."""
        if self._process:
            self._process.kill_and_wait(within_s=_KILL_S)
            self._close_process()

    @property
    def _address(self) -> str:
        return f"http://{_HOST}:{self._port}"

    def _try_to_start(self) -> ObservedState | None:
        """Start the server; the state if it cannot be started yet."""
        if time.monotonic() < self._start_at:
            return self._pending(self._why_pausing)
        self._check_spec()
        try:
            self._port = self._spec.port or _free_port()
            self._check_program()  # before another version has to end for its port
            if _is_taken(self._port):
                # Otherwise the answers of another server would count as ours.
                waiting = self._pending(
                    f"port {self._port} is in use; without executor_config.override_config.port it gets a free one"
                )
                return replace(waiting, required_address=self._address)
            self._start()
        except PermissionError:
            raise  # missing permissions do not come back by themselves
        except OSError as error:
            return self._pending(f"it cannot be started yet: {error.strerror or error}")
        return None

    def _check_spec(self) -> None:
        if self._settings.backend != "subprocess":
            why = self._settings.why_no_processes or "WORKSPACES_DEPLOYMENT_RUNTIME is another runtime"
            raise InvalidDeploymentSpec(f"this host may not start processes: {why}")
        if not self._spec.command:
            raise InvalidDeploymentSpec(
                "the configuration names no command: set executor_config.override_config.command, "
                'for example ["python", "-m", "http.server", "{port}"]'
            )

    def _check_program(self) -> None:
        program, directory = self._command[0], self._directory.path
        path = os.pathsep.join(str(directory / one) for one in self._environment["PATH"].split(os.pathsep))
        if not shutil.which(directory / program if "/" in program else program, path=path):
            raise InvalidDeploymentSpec(
                _cannot_be_run(program, "there is no such program, or it is not executable")
            )

    @property
    def _command(self) -> list[str]:
        parts = (*self._spec.command, *self._spec.arguments)
        return [part.replace("{port}", str(self._port)) for part in parts]

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **self._directory.environment,
            **self._spec.environment,
            "HOST": _HOST,
            "PORT": str(self._port),
        }

    def _start(self) -> None:
        if not self._directory.path.exists():
            self._directory.make()
        try:
            self._process = Process.start(
                self._command,
                run=self._spec.id,
                environment=self._environment,
                directory=self._directory.path,
                grace_s=self._settings.stop_grace_seconds,
            )
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            if number in _MAY_PASS:
                raise
            # Not the message of the error: it may contain a path of the server, or all of a long command.
            why = os.strerror(number) if number else str(error)
            raise InvalidDeploymentSpec(_cannot_be_run(self._command[0], why)) from error
        self._started_at = time.monotonic()
        # Its own end of the pipe: a process that ends at once is closed before the thread begins.
        try:
            output = os.fdopen(os.dup(self._process.output.fileno()), "rb")
        except OSError:
            self.kill()  # nobody would read what it prints
            raise
        self._output_reader = threading.Thread(target=self._copy_output, args=[output], daemon=True)
        self._output_reader.start()

    def _copy_output(self, output: BinaryIO) -> None:
        # All output is read, or the server would block at a full pipe; only its end is kept.
        log = ServerLog(self._directory.path / "server.log")
        with contextlib.suppress(OSError, ValueError), output:
            while line := output.readline(_LINE_CHARS * 4):
                log.append(line)
                self._last_lines.append(line.decode(errors="replace").strip().replace("\0", "")[:_LINE_CHARS])

    def _unhealthy(self, problem: str) -> ObservedState:
        if not self._was_ready:
            return self._slow_to_start(problem)
        self._failed_checks += 1
        if self._failed_checks < _UNHEALTHY_AFTER:
            message = f"Serving at {self._address}, but {problem}"
            return ObservedState(DeploymentStatus.READY, message, self._address)
        if self._process:
            self._process.kill()
        # The next observation sees the end of the process, and restarts the server as after a crash.
        return self._pending(f"starting again: {problem}")

    def _slow_to_start(self, problem: str) -> ObservedState:
        limit_s = self._settings.deployment_start_seconds
        if self._process and time.monotonic() > self._started_at + limit_s:
            self._process.kill()  # one that hangs would otherwise be waited for without end
            problem = f"{problem} within {limit_s:g} s; starting again"
        return self._pending(f"waiting: {problem}")

    def _crashed(self, reason: str) -> ObservedState:
        self._close_process()
        # A server can kill its reaper; the processes that are left would go on listening on its port.
        kill_leaked_processes(self._spec.id, within_s=1)
        self._was_ready = False
        pause = min(_LONGEST_BACKOFF_S, 2.0 ** min(self._crashes, 30))
        self._crashes += 1
        self._start_at = time.monotonic() + pause
        self._why_pausing = f"{reason}; starting again after {pause:.0f} s; {self._last_output()}"
        return self._pending(self._why_pausing)

    def _close_process(self) -> None:
        if self._process:
            self._process.close()
        self._process, self._failed_checks = None, 0

    def _pending(self, message: str) -> ObservedState:
        return ObservedState(DeploymentStatus.PENDING, message, details=self._last_output())

    def _last_output(self) -> str:
        if self._output_reader and self._process is None:
            self._output_reader.join(1)  # all output of a process that has just ended
        if not self._last_lines:
            return "it printed nothing"
        return f"its last output: {' | '.join(self._last_lines)}"


def _cannot_be_run(program: str, why: str) -> str:
    return f"'{program[:_NAME_CHARS]}' cannot be run: {why}"


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: lingering connections of an earlier server do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


def _free_port() -> int:
    # Another process can take the port before the server does; then the server fails and gets another one.
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
