"""Real commands, which leave no process behind."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest

from app.runtime.processes.leaked_processes import RUN_VARIABLE, kill_leaked_processes, processes_of
from app.runtime.processes.process import Process
from app.runtime.processes.reaper import children
from tests.runtime.runs import wait_until
from tests.support.deadlines import DEADLINE_S
from tests.support.processes import is_alive

ROOT = Path(__file__).parents[2]


def eventually(is_so: Callable[[], object], *, within_s: float = DEADLINE_S) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def run() -> Iterator[UUID]:
    """The run of this test's processes. If any is left at its end, it is killed and the test fails."""
    run = uuid4()
    yield run
    left = processes_of(run)
    kill_leaked_processes(run, within_s=5)
    assert left == []


Start = Callable[..., Process]


@pytest.fixture
def start(run: UUID, tmp_path: Path) -> Start:
    def do(*command: str, grace_s: float = 5, **environment: str) -> Process:
        return Process.start(
            command,
            run=run,
            environment={"PATH": os.environ["PATH"], **environment},
            directory=tmp_path,
            grace_s=grace_s,
        )

    return do


def ended(process: Process) -> int:
    """Read its output and wait for it; its exit code."""
    reading = threading.Thread(target=_all_output, args=[process])
    reading.start()
    assert eventually(lambda: process.poll() is not None)
    code = process.poll()
    assert code is not None
    reading.join()
    process.close()
    return code


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 3", 3), ("kill -KILL $$", -9), ("kill $$", -15)]
)
def test_it_ends_as_its_command_does(start: Start, script: str, code: int) -> None:
    assert ended(start("sh", "-c", script)) == code


def test_all_that_it_prints_arrives_in_order(start: Start) -> None:
    process = start("sh", "-c", "for i in $(seq 2000); do echo out $i; echo err $i >&2; done")

    printed = _all_output(process).splitlines()

    assert printed == [f"{where} {i}" for i in range(1, 2001) for where in ("out", "err")]
    assert ended(process) == 0


def test_it_gets_its_environment_and_nothing_of_ours(start: Start, run: UUID, monkeypatch) -> None:
    monkeypatch.setenv("WORKSPACES_GATEWAY_SECRET", "sixteen characters")
    process = start("env", ANSWER="42")

    names = {line.partition("=")[0] for line in _all_output(process).splitlines()}

    assert names - {"LC_CTYPE"} == {"PATH", "ANSWER", "WORKSPACES_RUN"}
    assert ended(process) == 0


def test_it_reads_nothing(start: Start) -> None:
    assert ended(start("sh", "-c", "read line || exit 7")) == 7


@pytest.mark.parametrize(
    ("command", "error"), [("no-such-command", FileNotFoundError), ("/etc/passwd", PermissionError)]
)
def test_a_command_that_cannot_be_run_says_why(start: Start, command: str, error: type[OSError]) -> None:
    with pytest.raises(error, match=f"'{command}' cannot be run"):
        start(command)


def test_a_directory_that_does_not_exist_is_named(run: UUID, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the working directory of 'true' does not exist"):
        Process.start(["true"], run=run, environment={}, directory=tmp_path / "no", grace_s=1)


class TestTerminating:
    def test_is_asked_for_first_and_then_enforced_on_all_of_them(self, start: Start, run: UUID) -> None:
        stubborn = (
            "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo ready; while :; do sleep 1; done"
        )
        process = start("sh", "-c", stubborn, grace_s=0.5)
        assert process.output.read(6) == b"ready\n"
        assert len(processes_of(run)) >= 3

        process.terminate()

        assert ended(process) == -9
        assert processes_of(run) == []

    def test_lets_a_command_end_itself_in_its_own_time(self, start: Start) -> None:
        process = start("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do :; done")
        assert process.output.read(6) == b"ready\n"

        process.terminate()

        assert process.output.read(4) == b"bye\n"
        assert ended(process) == 5

    def test_reaches_what_has_detached_itself(self, start: Start, run: UUID) -> None:
        detached = (
            "import os, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        print('ready', flush=True)\n"
            "        time.sleep(1000)\n"
            "    os._exit(0)\n"
            "os.wait(); time.sleep(1000)\n"
        )
        process = start(sys.executable, "-c", detached)
        assert process.output.read(6) == b"ready\n"

        process.terminate()

        assert ended(process) == -15
        assert processes_of(run) == []

    def test_is_stronger_than_spawning(self, start: Start, run: UUID) -> None:
        process = start(
            "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 5 & sleep 0.01; done", grace_s=0.2
        )
        assert process.output.read(6) == b"ready\n"

        process.terminate()

        assert ended(process) == -9
        assert processes_of(run) == []

    def test_without_grace_kills_at_once(self, start: Start) -> None:
        process = start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done", grace_s=1000)
        assert process.output.read(6) == b"ready\n"

        process.kill()

        assert ended(process) == -9

    def test_ends_one_whose_first_thread_has_ended(self, start: Start, run: UUID) -> None:
        """It looks like a zombie in the process table, and runs all the same."""
        script = (
            "import ctypes, threading, time\n"
            "threading.Thread(target=time.sleep, args=[1000]).start()\n"
            "print('ready', flush=True)\n"
            "ctypes.CDLL(None).syscall(60, 0)"  # exit, of this thread alone
        )
        if platform.machine() != "x86_64":
            pytest.skip("the number of the system call is that of x86_64")
        process = start(sys.executable, "-c", script, grace_s=0.2)
        assert process.output.read(6) == b"ready\n"

        process.terminate()

        wait_until(lambda: process.poll() is not None, "it ends")
        process.close()
        assert processes_of(run) == []

    def test_ends_what_is_paused(self, start: Start) -> None:
        process = start("sh", "-c", "echo ready; while :; do sleep 1; done")
        assert process.output.read(6) == b"ready\n"
        process.pause()

        process.terminate()

        assert ended(process) == -15


def test_what_a_command_leaves_in_the_background_ends_with_it(start: Start, run: UUID) -> None:
    assert ended(start("sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 4")) == 4
    assert processes_of(run) == []


def test_pausing_reaches_what_is_started_meanwhile(start: Start, run: UUID) -> None:
    forking = "while :; do (exec sleep 5) & (exec sleep 0.001); done"
    process = start("sh", "-c", f"for i in 1 2 3 4; do ({forking}) & done; echo ready; wait")
    assert process.output.read(6) == b"ready\n"

    process.pause()

    kept = psutil.Process(process._reaper.pid).children(recursive=True)
    assert len(kept) > 4
    assert {one.status() for one in kept} <= {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    process.kill()
    assert ended(process) == -9


def test_pausing_stops_everything_and_resuming_lets_it_go_on(start: Start, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    process = start("sh", "-c", "(while :; do echo >> counter; sleep 0.01; done) & wait")
    assert eventually(lambda: counter.exists() and counter.stat().st_size > 3)

    process.pause()
    paused = counter.stat().st_size
    assert not eventually(lambda: counter.stat().st_size > paused + 1, within_s=0.3)
    process.resume()

    assert eventually(lambda: counter.stat().st_size > paused + 3)
    process.kill()
    assert ended(process) == -9


WORKER = """
import sys, time
from pathlib import Path
from uuid import UUID
from app.runtime.processes.process import Process
script = "trap '' TERM; (setsid sleep 1000 &) ; echo ready; while :; do sleep 1; done"
process = Process.start(["sh", "-c", script], run=UUID(sys.argv[1]),
                        environment={"PATH": "/usr/bin:/bin"}, directory=Path("."), grace_s=0.3)
print(process.output.read(6).decode(), process._reaper.pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def worker(run: UUID) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that runs a command as a runtime worker does, and the pid of the reaper."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process, int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def test_nothing_outlives_a_worker_that_was_killed(
    worker: tuple[subprocess.Popen[str], int], run: UUID
) -> None:
    assert len(processes_of(run)) >= 3

    worker[0].kill()

    assert eventually(lambda: processes_of(run) == [])


def test_processes_that_outlive_worker_and_reaper_are_found_and_killed(
    worker: tuple[subprocess.Popen[str], int], run: UUID
) -> None:
    os.kill(worker[1], signal.SIGKILL)
    worker[0].kill()
    assert eventually(lambda: not is_alive(worker[1]))
    assert len(processes_of(run)) >= 2

    assert kill_leaked_processes(run, within_s=10)

    assert processes_of(run) == []


def test_a_process_whose_number_another_one_had_before_is_found(
    run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = subprocess.Popen(
        ["sleep", "1000"], env={**os.environ, RUN_VARIABLE: str(run)}, start_new_session=True
    )
    earlier = psutil.Process(marked.pid)
    earlier._gone = earlier._pid_reused = True
    monkeypatch.setattr(psutil, "_pmap", {marked.pid: earlier})  # what `process_iter` remembers
    try:
        assert kill_leaked_processes(run, within_s=10)

        assert marked.wait(DEADLINE_S) == -signal.SIGKILL
    finally:
        marked.kill()
        marked.wait()


HOST = """
import subprocess, sys, time
from pathlib import Path
from uuid import UUID
from app.runtime.processes.leaked_processes import adopt_orphans
from app.runtime.processes.process import Process
adopt_orphans()
run, token = UUID(sys.argv[1]), sys.argv[2]
def start(script, run=run):
    return Process.start(["sh", "-c", script], run=run, environment={"PATH": "/usr/bin:/bin"},
                         directory=Path("."), grace_s=0.3)
own = subprocess.Popen(["sleep", f"{token}1"])
other = start("echo ready; sleep 1000", UUID(int=1))
other.output.read(6)
escaping = start(f"(env -i setsid sh -c 'echo ready; sleep {token}2; :' &); read line; sleep 0.2; kill -9 $PPID")
escaping.output.read(6)
while escaping.poll() is None:
    time.sleep(0.01)
print("killed", escaping.poll(), own.poll(), other.poll(), flush=True)
sys.stdin.read()
other.kill()
own.kill()
"""


def test_a_process_that_kills_its_reaper_and_clears_its_environment_is_adopted_and_killed(run: UUID) -> None:
    token = str(uuid4().int)[:12]
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(run), token],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with host:
        assert host.stdout is not None
        # Processes of the worker itself, and those that still have a reaper, live on.
        assert host.stdout.readline() == "killed -9 None None\n"
        assert commands_with(token) == [f"sleep {token}1"]
        host.communicate()


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_command_that_stops_its_reaper_is_ended_all_the_same(
    start: Start, run: UUID, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("app.runtime.processes.process._START_S", 1.0)
    monkeypatch.setattr("app.runtime.processes.process._LATE_S", 0.2)
    wait = "sleep 0.3; " if when == "later" else ""
    process = start("sh", "-c", f"{wait}kill -STOP $PPID; sleep 1000", grace_s=0.1)
    reaper = psutil.Process(process._reaper.pid)
    assert eventually(lambda: reaper.status() == psutil.STATUS_STOPPED)
    process.terminate()
    assert ended(process) in (-15, -9)  # continued, or killed when it is late
    assert processes_of(run) == []


def test_a_reaper_that_is_stopped_with_its_report_still_open_is_not_waited_for(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = tmp_path / "reaper.py"
    reaper.write_text(
        "import os, signal, sys\nos.write(int(sys.argv[2]), b'begunok')\nos.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    monkeypatch.setattr("app.runtime.processes.process._REAPER", reaper)
    monkeypatch.setattr("app.runtime.processes.process._LATE_S", 0.2)
    process = start("true", grace_s=0.1)
    assert eventually(lambda: psutil.Process(process._reaper.pid).status() == psutil.STATUS_STOPPED)
    process.terminate()
    assert ended(process) in (-15, -9)  # continued, or killed when it is late


HOPPING = """
import os, signal, sys, time
if "killing its reaper" in sys.argv:
    os.kill(os.getppid(), signal.SIGKILL)
given_up_at = time.monotonic() + 60
while time.monotonic() < given_up_at:
    if os.fork():
        os._exit(0)
    if "in a session each" in sys.argv:
        os.setsid()
    time.sleep(0.001)
"""
ESCAPING = """
import sys, time
from pathlib import Path
from uuid import UUID
from app.runtime.processes.leaked_processes import adopt_orphans
from app.runtime.processes.process import Process
adopt_orphans()
process = Process.start([sys.executable, "-c", *sys.argv[2:]], run=UUID(sys.argv[1]),
                        environment={"PATH": "/usr/bin:/bin"}, directory=Path("."), grace_s=0.3)
while process.poll() is None:
    time.sleep(0.01)
print("killed")
"""


@pytest.mark.parametrize("how", ["killing its reaper", "below its reaper"])
@pytest.mark.parametrize("where", ["in one session", "in a session each"])
def test_a_process_that_keeps_forking_and_ending_does_not_escape(run: UUID, how: str, where: str) -> None:
    token = str(uuid4().int)[:12]
    command = [sys.executable, "-c", ESCAPING, str(run), HOPPING, token, how, where]

    host = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert host.stdout == "killed\n", host.stderr
    assert not eventually(lambda: processes_with(token), within_s=0.3)


@pytest.mark.parametrize("lists", ["/proc/self/task", "/nowhere"])
def test_children_are_seen_at_once_also_by_a_kernel_that_keeps_no_lists_of_them(
    monkeypatch: pytest.MonkeyPatch, lists: str
) -> None:
    monkeypatch.setattr("app.runtime.processes.reaper._THREADS", Path(lists))
    before = children()
    with subprocess.Popen(["true"]) as ended, subprocess.Popen(["sleep", "1000"]) as living:
        assert eventually(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
        assert children() - before == {ended.pid, living.pid}
        living.kill()
    assert children() == before


def processes_with(token: str) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if token in one.cmdline():
                found.append(one)
    return found


def test_one_argument_that_is_too_long_is_reported_without_a_path_and_leaves_no_file_open(
    start: Start,
) -> None:
    files = psutil.Process().num_fds()

    with pytest.raises(OSError, match="'echo' cannot be run: Argument list too long") as raised:
        start("echo", "x" * 200_000)

    assert raised.value.filename is None
    assert psutil.Process().num_fds() == files


def test_the_environment_of_a_command_does_not_reach_its_reaper(start: Start, tmp_path: Path) -> None:
    """LD_PRELOAD would run a user's code inside the reaper."""
    process = start("sh", "-c", "echo ready; sleep 1000", LD_PRELOAD=str(tmp_path / "none.so"), ANSWER="42")
    printed = process.output.read(65536).decode()
    while "ready" not in printed:
        printed += process.output.read(65536).decode()

    reaper = psutil.Process(process._reaper.pid)
    assert set(reaper.environ()) - {"LC_CTYPE"} == {"WORKSPACES_RUN"}
    assert all("ANSWER" in child.environ() for child in reaper.children())

    process.kill()
    assert ended(process) == -9


def commands_with(token: str) -> list[str]:
    """Every command line in the process table that names the token, but those of this test's own scripts."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = one.cmdline()
            if any(token in part for part in command) and command[0] != sys.executable:
                found.append(" ".join(command))
    return found


def test_a_reaper_whose_worker_died_before_it_could_watch_starts_nothing(tmp_path: Path) -> None:
    reaper = [sys.executable, "-I", str(ROOT / "app" / "runtime" / "processes" / "reaper.py")]
    command = ["touch", str(tmp_path / "started")]

    done = subprocess.run([*reaper, "1", "1", "0", *command], input=b"{}", capture_output=True, check=True)

    assert (done.stdout, done.stderr) == (b"", b"")
    assert not (tmp_path / "started").exists()


def test_other_runs_are_left_alone(start: Start) -> None:
    process = start("sh", "-c", "echo ready; sleep 1000")
    assert process.output.read(6) == b"ready\n"

    assert kill_leaked_processes(uuid4(), within_s=1)

    assert process.poll() is None
    process.kill()
    assert ended(process) == -9


def test_many_at_once_leave_neither_zombies_nor_open_files(start: Start, run: UUID) -> None:
    me = psutil.Process()
    ended(start("true"))
    files, children = me.num_fds(), set(me.children())

    processes = [start("sh", "-c", "echo ready; sleep 1000") for _ in range(20)]
    for process in processes:
        assert process.output.read(6) == b"ready\n"
        process.terminate()

    assert {ended(process) for process in processes} == {-15}
    assert me.num_fds() == files
    assert set(me.children()) == children


def _all_output(process: Process) -> str:
    whole = b""
    while chunk := process.output.read(65536):
        whole += chunk
    return whole.decode()
