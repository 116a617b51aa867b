import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import DevstackError
from devstack.processes import Command
from devstack.supervisor import Part, RestartPolicy, StackStopped, Stage, Supervisor
from tests.support.deadlines import DEADLINE_S
from tests.support.processes import is_alive

QUICK = RestartPolicy(first_s=0.05, longest_s=0.2, attempts=3)


def shell(name: str, line: str, stage: Stage = Stage.ENTRY) -> Part:
    return Part(name, Command(("/bin/sh", "-c", line)), stage)


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(log: io.StringIO) -> Iterator[Supervisor]:
    supervisor = Supervisor(log, restarts=QUICK)
    yield supervisor
    supervisor.stop()


def lines(log: io.StringIO) -> list[str]:
    return log.getvalue().splitlines()


def test_every_line_carries_the_name_of_its_part(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.start(shell("web", "echo one; echo two >&2; sleep 600"))
    supervisor.start(shell("beat", "printf 'no line end'; exec sleep 600"))
    supervisor.wait_until(lambda: "two" in log.getvalue(), "web prints nothing", timeout_s=DEADLINE_S)
    supervisor.stop()

    assert sorted(lines(log)) == ["beat     | no line end", "web      | one", "web      | two"]


def test_a_part_that_crashes_is_restarted_later_each_time(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.start(shell("web", "echo hello; exit 4"))
    with pytest.raises(DevstackError):
        supervisor.run()

    assert lines(log) == [
        "web      | hello",
        "stack    | web ended with status 4; starting it again in 0.05 s",
        "web      | hello",
        "stack    | web ended with status 4; starting it again in 0.1 s",
        "web      | hello",
    ]


def test_a_part_that_keeps_crashing_ends_the_stack_with_its_reason(supervisor: Supervisor) -> None:
    supervisor.start(shell("worker", "echo no such module; kill -9 $$"))

    reason = "worker failed 3 times in a row; the last time it was killed by SIGKILL: no such module"
    with pytest.raises(DevstackError, match=f"^{reason}$"):
        supervisor.run()


def test_a_part_that_had_been_well_is_not_given_up(log: io.StringIO) -> None:
    supervisor = Supervisor(log, restarts=RestartPolicy(first_s=0.01, attempts=2, steady_after_s=0))
    supervisor.start(shell("web", "echo hello"))
    try:
        supervisor.wait_until(
            lambda: lines(log).count("web      | hello") > 3, "gave up", timeout_s=DEADLINE_S
        )
    finally:
        supervisor.stop()


def test_once_all_is_up_a_part_that_keeps_crashing_ends_nothing_else(
    supervisor: Supervisor, log: io.StringIO
) -> None:
    supervisor.start(shell("web", "echo up; exec sleep 600"))
    supervisor.is_up = True
    supervisor.start(shell("worker", "echo poison; exit 1"))
    supervisor.wait_until(
        lambda: lines(log).count("worker   | poison") > 2 * QUICK.attempts, "gave up", timeout_s=DEADLINE_S
    )

    assert lines(log).count("web      | up") == 1
    assert "web ended" not in log.getvalue()


def test_a_part_is_repaired_before_it_starts_again(
    supervisor: Supervisor, log: io.StringIO, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.touch()

    def repair(last_lines: str) -> str:
        damaged.unlink()
        return f"mended: {last_lines}"

    line = f"test -e {damaged} && echo cannot read && exit 1; echo well; exec sleep 600"
    supervisor.start(Part("valkey", Command(("/bin/sh", "-c", line)), repair=repair))
    supervisor.wait_until(lambda: "well" in log.getvalue(), "it does not start", timeout_s=DEADLINE_S)

    assert "stack    | mended: cannot read" in lines(log)


def test_the_wait_before_a_restart_doubles_up_to_half_a_minute() -> None:
    assert [RestartPolicy().delay_s(crashes) for crashes in range(1, 7)] == [2, 4, 8, 16, 30, 30]


def test_a_part_that_crashes_for_days_is_still_started_again() -> None:
    """From the 1025th crash on, after some nine hours, the doubling is beyond a float."""
    assert RestartPolicy().delay_s(1025) == RestartPolicy().delay_s(10**9) == 30


def test_processes_that_a_crashed_part_left_are_ended_before_its_restart(log: io.StringIO) -> None:
    supervisor = Supervisor(log, restarts=RestartPolicy(first_s=60))  # it crashes once meanwhile
    supervisor.start(shell("worker", "sleep 600 & echo child $!; exit 1"))
    supervisor.wait_until(
        lambda: "starting it again" in log.getvalue(), "it did not crash", timeout_s=DEADLINE_S
    )

    child = lines(log)[0].rpartition(" ")[2]
    supervisor.wait_until(lambda: not is_alive(int(child)), "the child lives on", timeout_s=DEADLINE_S)


def test_a_one_off_that_fails_is_reported_with_its_last_line(supervisor: Supervisor) -> None:
    with pytest.raises(DevstackError, match=r"^release ended with status 2: no database$"):
        supervisor.run_to_end(shell("release", "echo no database; exit 2"))


def test_a_one_off_that_ends_well_is_not_run_again(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.run_to_end(shell("release", "echo migrated"))
    supervisor.start(shell("web", "sleep 0.3; echo up; sleep 600"))
    supervisor.wait_until(lambda: "up" in log.getvalue(), "web prints nothing", timeout_s=DEADLINE_S)

    assert lines(log) == ["release  | migrated", "web      | up"]


def test_the_entry_points_end_before_the_workers_and_the_workers_before_the_servers(
    supervisor: Supervisor, log: io.StringIO
) -> None:
    for name, stage in (("server", Stage.SERVERS), ("worker", Stage.WORKERS), ("web", Stage.ENTRY)):
        line = f"trap 'echo {name} ends; exit' TERM; echo {name} is up; while true; do sleep 0.05; done"
        supervisor.start(shell(name, line, stage))
    supervisor.wait_until(lambda: log.getvalue().count("is up") == 3, "not all are up", timeout_s=DEADLINE_S)
    supervisor.stop()

    assert [line.partition("| ")[2] for line in lines(log)[3:]] == ["web ends", "worker ends", "server ends"]


def test_asking_it_to_stop_interrupts_a_wait(supervisor: Supervisor) -> None:
    supervisor.stopping = True
    began = time.monotonic()

    with pytest.raises(StackStopped):
        supervisor.wait_until(lambda: False, "never", timeout_s=10 * DEADLINE_S)
    assert time.monotonic() - began < DEADLINE_S


def test_a_wait_that_takes_too_long_says_what_for(supervisor: Supervisor) -> None:
    with pytest.raises(DevstackError, match=r"^the broker does not answer \(0\.2 s\)\.$"):
        supervisor.wait_until(lambda: False, "the broker does not answer", timeout_s=0.2)
