"""Attempts of jobs: real processes, the real database, and requests while they run."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import psutil
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.config.profiles import LIMITS, ExecutionProfile
from app.context import Context
from app.db import Sessions, connect, sessions_of
from app.lease import LeaseLost, has_lapsed
from app.lifecycle import JobStatus
from app.models import Job, JobLog, Workspace
from app.runtime import leased_row
from app.runtime.hosts.startup import remove_unowned_runs
from app.runtime.jobs import log_writer, supervisor
from app.runtime.jobs.endings import stopped_message
from app.runtime.jobs.log_writer import Line, LogWriter
from app.runtime.lease import Lease
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.leaked_processes import processes_of
from app.runtime.processes.process import Process
from app.runtime.processes.reaper import RESOURCES
from app.runtime.processes.run_directory import runs_directory
from app.runtime.processes.workdir import WorkDirectory
from devstack.processes import free_port
from tests.factories import make_fileset, make_job_log, make_workspace
from tests.runtime.runs import QUICK, STUBBORN, Run, is_all_gone, step, submit, supervised, tuned, wait_until
from tests.support.deadlines import DEADLINE_S

CHECKOUT = Path(__file__).resolve().parents[2]


def test_steps_run_in_order_and_share_a_private_directory_that_goes_with_the_job(
    session: Session, context: Context
) -> None:
    steps = [step("umask 022; echo one > shared; stat -c %a .", "first"), step("cat shared; pwd", "second")]
    job_id = submit(session, *steps)

    with supervised(context, job_id) as run:
        job = run.end()

    directory = WorkDirectory(context.settings, job_id).path
    assert (job.status, job.error_details) == (JobStatus.COMPLETED, None)
    assert run.log == ["700", "one", str(directory)]
    assert [(one["name"], one["status"]) for one in job.steps] == [
        ("first", "completed"),
        ("second", "completed"),
    ]
    assert is_all_gone(run)


def test_a_step_that_fails_ends_the_job_with_its_exit_code(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo oops >&2; exit 3", "bad"), step("echo never", "later"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert job.error_details == {"message": "step 'bad' ended with exit code 3", "exit_code": 3}
    assert [(one["name"], one["status"], one["error_details"]) for one in job.steps] == [
        ("bad", "error", job.error_details)
    ]
    assert run.log == ["oops"]
    assert is_all_gone(run)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-command"], "step 'main' could not be started"),
        (["/etc/hostname"], "step 'main' could not be started"),
        (["sh", "-c", "kill -9 $$"], "step 'main' was ended by signal 9"),
    ],
)
def test_a_command_that_cannot_run_or_is_killed_ends_the_job_with_the_reason(
    session: Session, context: Context, command: list[str], message: str
) -> None:
    job_id = submit(session, {"name": "main", "executor": {"provider": "subprocess", "command": command}})

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert message in job.error_details["message"]
    assert is_all_gone(run)


def test_a_container_runs_its_entry_point_with_its_command(session: Session, context: Context) -> None:
    container = {"image": "any", "entrypoint": ["echo", "a"], "command": ["b"]}
    job_id = submit(session, {"name": "main", "executor": {"provider": "cpu", "container": container}})

    with supervised(context, job_id) as run:
        assert run.end().status is JobStatus.COMPLETED

    assert run.log == ["a b"]


def test_a_process_knows_its_own_variables_and_its_job_and_nothing_of_the_server(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSPACES_GATEWAY_SECRET", "not for jobs, never")
    own = [
        {"name": "EPOCHS", "value": "7"},
        {"name": "WORKSPACES_RUN", "value": "a disguise"},
        {"name": "NMP_FILES_URL", "value": "mine"},
    ]
    script = 'env; cat "$NEMO_JOB_STEP_CONFIG_FILE_PATH"'
    job_id = submit(session, step(script, environment=own, config={"rate": 0.5}))

    with supervised(context, job_id, job_api_url="https://api.example.com/") as run:
        job = run.end()

    variables = dict(line.split("=", 1) for line in run.log if "=" in line)
    assert {"EPOCHS": "7", "NEMO_JOB_ID": str(job_id), "NEMO_JOB_STEP": "main"}.items() <= variables.items()
    assert (variables["NMP_BASE_URL"], variables["NMP_FILES_URL"]) == ("https://api.example.com", "mine")
    assert (variables["NEMO_JOB_WORKSPACE"], variables["NEMO_JOB_FILESET"]) == ("ml-team", job.fileset)
    assert (variables["HOME"], variables["WORKSPACES_RUN"]) == (variables["PWD"], str(job_id))
    assert "not for jobs, never" not in variables.values()
    assert {name for name in variables if name.startswith("WORKSPACES_")} == {
        "WORKSPACES_RUN",
        "WORKSPACES_RESULTS_DIR",
    }
    assert run.log[-1] == '{"rate": 0.5}'


# --- the log ----------------------------------------------------------------------------------------------


def test_output_can_be_read_while_the_job_runs(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo early; echo also >&2; sleep 60"))

    with supervised(context, job_id) as run:
        run.wait_for_line("also")
        assert (run.log, run.job.status) == (["early", "also"], JobStatus.ACTIVE)


def test_a_job_ends_although_somebody_else_holds_its_output(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.jobs.attempt._DRAIN_S", 0.5)
    job_id = submit(session, step("echo ready; while [ ! -e go ]; do sleep 0.05; done"))

    with supervised(context, job_id) as run:
        run.wait_for_line("ready")
        with Path(f"/proc/{shell_of(run).pid}/fd/1").open("wb"):
            (WorkDirectory(run.context.settings, job_id).path / "go").touch()
            assert run.end().status is JobStatus.COMPLETED


def test_a_job_that_prints_is_not_stale_while_its_log_cannot_be_written(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifecycle = {"staleness_timeout_seconds": 1}
    job_id = submit(session, step("for i in 1 2 3; do echo $i; sleep 0.2; done", lifecycle=lifecycle))
    began, insert = time.monotonic(), LogWriter.insert

    def away_for_a_while(*arguments: Any) -> None:
        if time.monotonic() < began + 3:
            raise OperationalError("INSERT", {}, Exception("away"))
        insert(*arguments)

    monkeypatch.setattr(LogWriter, "insert", away_for_a_while)
    with supervised(context, job_id) as run:
        assert run.end().status is JobStatus.COMPLETED
    assert run.log == ["1", "2", "3"]


def test_a_line_that_stands_unfinished_can_be_read_too(session: Session, context: Context) -> None:
    waits = "while [ ! -e $0 ]; do sleep 0.05; done"
    script = (
        f"printf 'Continue? gr\\303'; sh -c '{waits}' go1; printf '\\274n'; sh -c '{waits}' go2; "
        "echo; echo .; sleep 60"
    )
    job_id = submit(session, step(script))

    with supervised(context, job_id) as run:
        directory = WorkDirectory(run.context.settings, job_id).path
        run.wait_for_line("Continue? gr")
        (directory / "go1").touch()
        run.wait_for_line("ün")
        (directory / "go2").touch()
        run.wait_for_line(".")

    assert run.log == ["Continue? gr", "ün", "."]


def test_lines_that_are_long_or_no_text_are_kept_as_well_as_text_can(
    session: Session, context: Context
) -> None:
    script = (
        "import sys; w = sys.stdout.buffer.write; w(b'a\\xffb\\n'); w(b'nu\\0l\\n'); w(b'dos\\r\\n\\n');"
        "w('\\u00e4'.encode() * 100_000 + b'\\n'); w(b'no end')"
    )
    command = [sys.executable, "-c", script]
    job_id = submit(session, {"name": "main", "executor": {"provider": "subprocess", "command": command}})

    with supervised(context, job_id) as run:
        run.end()

    first, last = run.log[:4], run.log[-1]
    assert (first, last) == (["a\ufffdb", "nul", "dos", ""], "no end")
    pieces = run.log[4:-1]
    assert len(pieces) > 1
    assert "".join(pieces) == "ä" * 100_000
    assert all(len(piece.encode()) < 64 * 1024 for piece in pieces)


def test_of_a_log_beyond_its_limit_the_end_is_kept_as_well_as_the_beginning(
    session: Session, context: Context
) -> None:
    loud = step("seq -f %0100g 1 5000; echo the cause of the failure >&2", "loud")
    job_id = submit(session, loud, step("echo quiet", "quiet"))

    with supervised(context, job_id, job_log_limit_bytes=40_000) as run:
        assert run.end().status is JobStatus.COMPLETED

    lines = run.log
    limit = next(
        n for n, line in enumerate(lines) if line.startswith("The log has reached its limit of 40000")
    )
    # A line of 100 bytes takes about 400 in the database.
    assert [int(line) for line in lines[:limit]] == list(range(1, 101))
    left_out, *tail = lines[limit + 1 :]
    assert tail[-2:] == ["the cause of the failure", "quiet"]
    numbers = [int(line) for line in tail[:-2]]
    assert numbers == list(range(numbers[0], 5001))
    assert left_out == f"{numbers[0] - 101} lines are left out here."
    assert 8_000 < 400 * len(tail) <= 10_400


def test_of_a_progress_bar_only_the_last_state_is_kept(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.jobs.log._FRAMES_S", 1000.0)
    script = (
        "import sys, time\n"
        "for n in range(60):\n    sys.stdout.write(f'\\r{n} %'); sys.stdout.flush(); time.sleep(0.02)\n"
        "sys.stdout.write('\\n')\n"
        "for n in range(60):\n    sys.stdout.write(f'{n} of 60\\r'); sys.stdout.flush()\n"
        "sys.stdout.write('\\r\\nend\\r\\n')"
    )
    command = [sys.executable, "-c", script]
    job_id = submit(session, {"name": "main", "executor": {"provider": "subprocess", "command": command}})

    with supervised(context, job_id) as run:
        run.end()

    assert run.log == ["59 %", "59 of 60", "end"]


def test_a_line_is_written_once_although_its_commit_was_lost(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(session, step("true"), host="here", lease_owner="7@1.00", fence=2)
    writer = LogWriter(tuned(context, job_log_limit_bytes=650), session.get_one(Job, job_id), fence=2)
    connected, is_lost = log_writer.session_scope, [False]

    @contextlib.contextmanager
    def scope(sessions: Sessions) -> Iterator[Session]:
        with connected(sessions) as one:
            yield one
        if not is_lost[0]:
            is_lost[0] = True
            raise OperationalError("COMMIT", {}, Exception("the answer was lost"))

    monkeypatch.setattr(log_writer, "session_scope", scope)
    lines = [Line.now(text) for text in ("one", "two", "three")]
    with pytest.raises(OperationalError):
        writer.append("main", lines)
    writer.append("main", lines)
    writer.insert("main", writer.take_tail())

    first, second, notice, last = Run(context, job_id).log
    assert (first, second, last) == ("one", "two", "three")
    assert notice.startswith("The log has reached its limit")


@pytest.mark.parametrize("output_location", [None, "shared"])
def test_who_follows_a_log_misses_no_line_that_was_printed_before_a_client_sent_one(
    session: Session, context: Context, output_location: str | None
) -> None:
    job_id = submit(session, step("true"), host="here", lease_owner="7@1.00", fence=2)
    job = session.get_one(Job, job_id)
    where: dict[str, Any] = {}
    if output_location:
        job.output_location = output_location
        fileset = make_fileset(session, session.get_one(Workspace, job.workspace_id), output_location)
        where = {"fileset_id": fileset.id, "base_path": job.artifact_base_path, "job": job.name}
    session.commit()
    writer, printed = LogWriter(context, job, fence=2), [Line.now("printed"), Line.now("later")]
    sent = make_job_log(session, job, "sent", id=UUID(int=printed[1].id.int + 10**9), **where)
    session.commit()

    writer.append("main", printed)
    writer.append("main", [Line.now("last")])

    ids = session.execute(select(JobLog.id, JobLog.message).order_by(JobLog.id)).all()
    assert [message for _, message in ids] == ["sent", "printed", "later", "last"]
    assert ids[0].id == sent.id


def test_a_runner_with_an_outdated_fence_cannot_add_to_the_log(session: Session, context: Context) -> None:
    job_id = submit(session, step("true"), host="here", lease_owner="7@1.00", fence=2)
    job = session.get_one(Job, job_id)

    with pytest.raises(LeaseLost):
        LogWriter(context, job, fence=1).append("main", [Line.now("late")])
    LogWriter(context, job, fence=2).append("main", [Line.now("in time")])

    assert Run(context, job_id).log == ["in time"]


# --- requests meanwhile --------------------------------------------------------------------------------


def test_a_job_is_cancelled_only_when_all_its_processes_are_gone_however_stubborn(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step(STUBBORN + "while :; do sleep 0.1; done"), step("echo never", "later"))

    with supervised(context, job_id, stop_grace_seconds=1) as run:
        run.wait_for_line("ready")
        run.ask(JobStatus.CANCELLING)
        seen = []
        wait_until(
            lambda: seen.append((run.job.status, bool(processes_of(job_id)))) or not seen[-1][1], "all gone"
        )
        job = run.end()

    assert {status for status, is_alive in seen if is_alive} == {JobStatus.CANCELLING}
    assert (job.status, job.steps[-1]["status"], run.log) == (JobStatus.CANCELLED, "cancelled", ["ready"])
    assert is_all_gone(run)


@pytest.mark.parametrize("output", ["", "exec >/dev/null 2>&1;"], ids=["printing", "silent"])
def test_a_job_that_kills_its_reaper_ends_and_leaves_nothing(
    session: Session, context: Context, output: str
) -> None:
    job_id = submit(session, step(f"{output} (setsid sleep 1000 &); kill -KILL $PPID; sleep 1000"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, job.error_details["message"]) == (
        JobStatus.ERROR,
        "step 'main' was ended by signal 9",
    )
    assert is_all_gone(run)


def test_a_job_that_closes_its_output_costs_no_more_queries_than_another(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(session, step("exec >/dev/null 2>&1; until [ -e go ]; do sleep 0.05; done"))
    calls, refresh, poll = {"refresh": 0, "poll": 0}, LeasedRow.refresh, Process.poll

    def count(name: str, function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return counted

    with supervised(context, job_id, runtime_poll_seconds=1.0) as run:
        run.wait_for(JobStatus.ACTIVE)
        wait_until(lambda: processes_of(job_id), "it runs")
        monkeypatch.setattr(LeasedRow, "refresh", count("refresh", refresh))
        monkeypatch.setattr(Process, "poll", count("poll", poll))
        wait_until(lambda: calls["poll"] >= 40, "it is polled")
        (WorkDirectory(context.settings, job_id).path / "go").touch()
        run.end()

    # Twenty polls of the processes in each second, and one query.
    assert calls["refresh"] <= calls["poll"] / 5


def test_a_job_that_stops_its_reaper_ends_as_its_command_did(session: Session, context: Context) -> None:
    job_id = submit(session, step("kill -STOP $PPID; exit 3"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert job.error_details["message"] == "step 'main' ended with exit code 3"
    assert is_all_gone(run)


@pytest.mark.parametrize("is_dangling", [False, True], ids=["to a directory of others", "to nothing"])
def test_a_link_in_the_place_of_a_work_directory_is_removed_as_a_link(
    session: Session, context: Context, tmp_path: Path, is_dangling: bool
) -> None:
    victim = tmp_path / "victim"
    if not is_dangling:
        victim.mkdir()
        (victim / "theirs").touch(mode=0o400)
    job_id = submit(session, step(f'cd ..; mv "$HOME" "$HOME.away"; ln -s {victim} "$HOME"'))

    with supervised(context, job_id) as run:
        run.end()

    assert is_all_gone(run)
    assert not os.path.lexists(WorkDirectory(context.settings, job_id).path)
    if not is_dangling:
        assert (victim / "theirs").stat().st_mode & 0o777 == 0o400
    assert remove_unowned_runs(run.context) == []
    assert list(runs_directory(context.settings).iterdir()) == [], (
        "a name that is no run goes at the next start"
    )


def test_a_process_that_ends_well_when_asked_to_stop_is_cancelled_too(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"))

    with supervised(context, job_id) as run:
        run.wait_for_line("ready")
        run.ask(JobStatus.CANCELLING)
        assert run.end().status is JobStatus.CANCELLED

    assert run.log[-1] == "bye"


def test_a_paused_job_stands_still_until_it_is_resumed(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo ready; while [ ! -e go ]; do sleep 0.05; done; echo went"))
    directory = WorkDirectory(context.settings, job_id).path

    with supervised(context, job_id, job_time_limit_seconds=120) as run:
        run.wait_for_line("ready")
        run.ask(JobStatus.PAUSING)
        run.wait_for(JobStatus.PAUSED)
        command = shell_of(run)
        # A shell whose child was stopped between vfork and exec waits for it in the kernel.
        assert command.status() in {psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP}
        assert run.job.steps[-1]["status"] == "paused"
        (directory / "go").touch()
        assert run.log == ["ready"]

        run.ask(JobStatus.RESUMING)
        job = run.end()

    assert (job.status, run.log) == (JobStatus.COMPLETED, ["ready", "went"])


def shell_of(run: Run) -> psutil.Process:
    for pid in processes_of(run.job_id):
        with contextlib.suppress(psutil.NoSuchProcess):  # its children come and go
            one = psutil.Process(pid)
            if one.name() in ("sh", "dash", "bash"):
                return one
    raise AssertionError("the shell of the job does not run")


def test_a_paused_job_can_be_cancelled(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo ready; sleep 60"))

    with supervised(context, job_id) as run:
        run.wait_for_line("ready")
        run.ask(JobStatus.PAUSING)
        run.wait_for(JobStatus.PAUSED)
        run.ask(JobStatus.CANCELLING)
        assert run.end().status is JobStatus.CANCELLED

    assert is_all_gone(run)


def test_a_job_asked_to_pause_as_its_last_process_ends_completes_once_it_is_resumed(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step("echo ready; while [ ! -e go ]; do sleep 0.05; done"))

    with supervised(context, job_id, runtime_poll_seconds=2) as run:
        run.wait_for_line("ready")
        # Before the supervisor refreshes the row: it learns of the end first.
        (WorkDirectory(context.settings, job_id).path / "go").touch()
        run.ask(JobStatus.PAUSING)
        run.wait_for(JobStatus.PAUSED)
        wait_until(lambda: not processes_of(job_id), "the process ends")
        run.ask(JobStatus.RESUMING)
        assert run.end().status is JobStatus.COMPLETED


def test_what_a_job_is_paused_does_not_count_against_its_time_limit(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step("echo ready; sleep 0.4"))

    with supervised(context, job_id, job_time_limit_seconds=2) as run:
        run.wait_for_line("ready")
        run.ask(JobStatus.PAUSING)
        run.wait_for(JobStatus.PAUSED)
        paused_at = time.monotonic()
        wait_until(lambda: time.monotonic() > paused_at + 2.5, "longer than the limit")
        run.ask(JobStatus.RESUMING)
        assert run.end().status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("limits", "more", "message"),
    [
        ({"job_time_limit_seconds": 1}, {}, "the job ran longer than its time limit of 1 s"),
        (
            {},
            {"lifecycle": {"staleness_timeout_seconds": 1}},
            "step 'main' printed nothing for its staleness time-out of 1 s",
        ),
    ],
)
def test_a_job_over_a_limit_is_stopped_and_says_which(
    session: Session,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, Any],
    more: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("app.runtime.jobs.log._CHECK_S", 0.1)  # often enough within the staleness time-out
    job_id = submit(session, step(STUBBORN + "sleep 60", **more))

    with supervised(context, job_id, **limits) as run:
        job = run.end()

    assert (job.status, job.error_details) == (JobStatus.ERROR, {"message": message})
    assert is_all_gone(run)


class TestAnExecutionProfile:
    """The settings of an operator for the steps that name the profile."""

    SHORT = ExecutionProfile(
        provider="subprocess",
        profile="short",
        time_limit_seconds=1,
        stop_grace_seconds=0,
        environment={"GREETING": "hello", "COLOUR": "red"},
    )

    def on(self, profile: str, script: str, **more: Any) -> dict[str, Any]:
        named = step(script, **more)
        return {**named, "executor": {**named["executor"], "profile": profile}}

    def test_the_processes_of_a_step_are_limited(self, session: Session, context: Context) -> None:
        limits = {"max_memory_bytes": 512 * 1024**2, "max_processes": 100_000, "max_file_bytes": 1024**2}
        profile = self.SHORT.model_copy(update=limits)
        job_id = submit(session, self.on("short", "sh -c 'cat /proc/self/limits'"))

        with supervised(context, job_id, execution_profiles=(profile,)) as run:
            assert run.end().status is JobStatus.COMPLETED

        found = {line[:25].strip(): line[25:].split()[:2] for line in run.log}
        assert found["Max address space"] == [str(limits["max_memory_bytes"])] * 2
        assert found["Max file size"] == [str(limits["max_file_bytes"])] * 2
        assert int(found["Max processes"][1]) <= limits["max_processes"]

    def test_has_no_limit_that_the_reaper_does_not_know(self) -> None:
        """The reaper is a program of its own, which imports nothing of ours."""
        assert set(RESOURCES) == set(LIMITS), (
            "name a new limit in reaper.py, with the resource that it limits"
        )

    def test_a_step_that_writes_a_larger_file_than_it_may_is_told_so(
        self, session: Session, context: Context
    ) -> None:
        profile = self.SHORT.model_copy(update={"max_file_bytes": 1000})
        job_id = submit(session, self.on("short", "exec head -c 2000 /dev/zero > zeros"))

        with supervised(context, job_id, execution_profiles=(profile,)) as run:
            job = run.end()

        assert job.error_details == {
            "message": "step 'main' was ended by signal 25 because it wrote a larger file than it may",
            "exit_code": -25,
        }

    def test_gives_its_variables_to_steps_that_have_none_of_that_name(
        self, session: Session, context: Context
    ) -> None:
        own = [{"name": "COLOUR", "value": "blue"}]
        job_id = submit(session, self.on("short", "echo $GREETING $COLOUR", environment=own))

        with supervised(context, job_id, execution_profiles=(self.SHORT,)) as run:
            assert run.end().status is JobStatus.COMPLETED
            assert run.log == ["hello blue"]

    def test_limits_the_time_of_each_step_and_its_end(self, session: Session, context: Context) -> None:
        # Three seconds of margin for each start, and two steps take longer than the limit of one.
        profile = self.SHORT.model_copy(update={"time_limit_seconds": 6})
        job_id = submit(
            session,
            self.on("short", "sleep 3.1", name="first"),
            self.on("short", "sleep 3.1", name="second"),
            self.on("short", STUBBORN + "sleep 60", name="third"),
        )

        # With the usual grace the end would not come within the time that the test has.
        with supervised(context, job_id, execution_profiles=(profile,), stop_grace_seconds=1000) as run:
            job = run.end()

        message = "step 'third' ran longer than 6 s, the time limit of 'subprocess/short'"
        assert (job.status, job.error_details) == (JobStatus.ERROR, {"message": message})
        assert [one["status"] for one in job.steps] == ["completed", "completed", "error"]
        assert is_all_gone(run)

    def test_does_not_count_what_a_step_was_paused(self, session: Session, context: Context) -> None:
        # Seconds of margin for the start and for the way to the pause.
        profile = self.SHORT.model_copy(update={"time_limit_seconds": 6})
        job_id = submit(session, self.on("short", "echo ready; sleep 0.4"))

        with supervised(context, job_id, execution_profiles=(profile,)) as run:
            run.wait_for_line("ready")
            run.ask(JobStatus.PAUSING)
            run.wait_for(JobStatus.PAUSED)
            paused_at = time.monotonic()
            wait_until(lambda: time.monotonic() > paused_at + 6.5, "longer than the limit")
            run.ask(JobStatus.RESUMING)
            assert run.end().status is JobStatus.COMPLETED

    def test_that_is_gone_by_now_ends_the_job_with_the_reason(
        self, session: Session, context: Context
    ) -> None:
        job_id = submit(session, self.on("long", "true"))

        with supervised(context, job_id, execution_profiles=(self.SHORT,)) as run:
            job = run.end()

        assert job.status is JobStatus.ERROR
        assert job.error_details == {
            "message": "the execution profile 'subprocess/long' of step 'main' does not exist any more"
        }


def test_a_step_that_goes_on_printing_is_not_stale(session: Session, context: Context) -> None:
    lifecycle = {"staleness_timeout_seconds": 4}
    job_id = submit(session, step("for i in 1 2 3 4 5 6; do echo $i; sleep 0.8; done", lifecycle=lifecycle))

    with supervised(context, job_id) as run:
        assert run.end().status is JobStatus.COMPLETED


def test_a_worker_that_is_stopped_takes_its_jobs_with_it(session: Session, context: Context) -> None:
    job_id = submit(session, step(STUBBORN + "sleep 60"))

    with supervised(context, job_id) as run:
        run.wait_for_line("ready")
        run.stopping.set()
        job = run.end()

    assert (job.status, job.error_details) == (
        JobStatus.ERROR,
        {"message": stopped_message(run.context.settings)},
    )
    assert is_all_gone(run)


def test_a_worker_that_drains_takes_up_nothing_and_lets_its_jobs_end(
    session: Session, context: Context
) -> None:
    workspace = make_workspace(session)
    job_id = submit(
        session, step("echo ready; until [ -e go ]; do sleep 0.05; done"), workspace=workspace, name="running"
    )
    later = submit(session, step("true"), workspace=workspace, name="later")

    with supervised(context, job_id, runtime_on_stop="drain", runtime_drain_seconds=90) as run:
        run.wait_for_line("ready")
        run.draining.set()
        wait_until(lambda: "runtime" in run.job.status_details, "its owner is told")
        told = run.job.status_details["runtime"]
        summary = supervisor.supervise(run.context, later, stopping=run.stopping, draining=run.draining)
        (WorkDirectory(context.settings, job_id).path / "go").touch()
        job = run.end()

    assert (
        told
        == f"the runtime worker on host '{socket.gethostname()}' is being stopped; the job may go on for 90 s"
    )
    assert job.status is JobStatus.COMPLETED
    assert summary == "stays created, this worker is being stopped"


def test_a_job_that_outlasts_the_drain_of_its_worker_says_so(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo ready; sleep 60"))

    with supervised(context, job_id, runtime_on_stop="drain", runtime_drain_seconds=5) as run:
        run.wait_for_line("ready")
        run.draining.set()
        run.stopping.set()
        job = run.end()

    assert job.error_details["message"].startswith(
        "the runtime worker was stopped, and the job did not end within 5 s (WORKSPACES_RUNTIME_ON_STOP=drain)"
    )
    assert "runtime" not in job.status_details


# --- one runner -------------------------------------------------------------------------------------------


def test_a_runner_that_lost_its_lease_kills_what_it_started_and_writes_nothing(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step(STUBBORN + "while :; do echo more; sleep 0.1; done"))

    with supervised(context, job_id) as run:
        run.wait_for_line("more")
        session.execute(update(Job).values(fence=Job.fence + 1, status=JobStatus.PAUSED))
        session.commit()
        lines = len(run.log)
        job = run.end()

    assert run.summary == "the lease was lost; its processes were killed"
    assert (job.status, job.host) == (JobStatus.PAUSED, job.host)
    assert job.host is not None
    assert len(run.log) == lines
    assert processes_of(job_id) == []


def cut_off(context: Context, *, lease_s: float) -> Context:
    """The context with a database that refuses connections."""
    settings = context.settings.model_copy(
        update={
            "runtime_lease_seconds": lease_s,
            "database_url": f"postgresql+psycopg://app@127.0.0.1:{free_port()}/x",
        }
    )
    return replace(context, settings=settings, sessions=sessions_of(connect(settings)))


def test_a_runner_cut_off_from_the_database_waits_beyond_its_lease_unless_it_has_to_stop(
    session: Session, context: Context
) -> None:
    job = session.get_one(Job, submit(session, step("true"), host="here", lease_owner="7@1.00", fence=1))
    started, stopping, errors = time.monotonic(), Event(), list[Exception]()
    row = LeasedRow(
        cut_off(context, lease_s=0.2), job, job.status, Lease(1, started + 0.2), stopping=stopping
    )

    def write() -> None:
        try:
            row.write(lambda _session, _job: None)
        except LeaseLost as error:
            errors.append(error)

    assert row.refresh() is job.status
    writing = Thread(target=write)
    writing.start()
    wait_until(lambda: time.monotonic() > started + 1, "several leases")
    assert (writing.is_alive(), errors) == (True, [])

    stopping.set()
    writing.join(DEADLINE_S)
    assert (writing.is_alive(), len(errors)) == (False, 1)


def test_a_job_goes_on_through_an_outage_longer_than_its_lease_and_takes_the_lease_again(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(session, step("echo ready; while [ ! -e go ]; do sleep 0.05; done; echo went"))
    is_away, connected = Event(), leased_row.session_scope

    @contextlib.contextmanager
    def scope(sessions: Sessions) -> Iterator[Session]:
        if is_away.is_set():
            raise OperationalError("SELECT", {}, Exception("away"))
        with connected(sessions) as one:
            yield one

    monkeypatch.setattr(leased_row, "session_scope", scope)
    with supervised(context, job_id, runtime_lease_seconds=1) as run:
        run.wait_for_line("ready")
        is_away.set()
        lapsed = select(Job.id).where(Job.id == job_id, has_lapsed(Job))
        wait_until(lambda: session.scalar(lapsed), "its lease has lapsed")
        assert supervisor.reap(run.context, job_id).endswith(f"supervised on host '{run.job.host}'")
        is_away.clear()
        (WorkDirectory(context.settings, job_id).path / "go").touch()
        job = run.end()

    assert (job.status, job.fence, run.log) == (JobStatus.COMPLETED, 1, ["ready", "went"])


def test_the_lease_is_renewed_for_as_long_as_the_job_runs(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo ready; while [ ! -e go ]; do sleep 0.05; done"))

    with supervised(context, job_id, runtime_lease_seconds=1) as run:
        run.wait_for_line("ready")
        first = run.job.lease_until
        wait_until(lambda: (run.job.lease_until - first).total_seconds() > 2, "renewed more than once")
        (WorkDirectory(context.settings, job_id).path / "go").touch()
        job = run.end()

    assert (job.status, job.fence) == (JobStatus.COMPLETED, 1)


def test_a_job_with_two_messages_in_one_process_starts_once(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo started; sleep 0.5"))

    with supervised(context, job_id) as one, supervised(context, job_id) as other:
        one.end()
        other.end()

    job = one.job  # whichever of the two it was that ran it
    assert (one.log, job.status, job.fence) == (["started"], JobStatus.COMPLETED, 1)


def test_a_job_with_two_messages_on_one_host_starts_once(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo started; sleep 1"))
    settings = {
        f"WORKSPACES_{name.upper()}": str(value)
        for name, value in {
            **QUICK,
            "database_url": context.settings.database_url,
            "data_dir": context.settings.data_dir,
        }.items()
    }
    script = (
        "import sys, threading, uuid; from app.config import Settings; from app.context import Context;"
        "from app.runtime.jobs import supervisor as jobs;"
        "sys.stdin.readline();"
        "print(jobs.supervise(Context.open(Settings()), uuid.UUID(sys.argv[1]), stopping=threading.Event()))"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(job_id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**settings, "PYTHONPATH": str(CHECKOUT)},
            text=True,
        )
        for _ in range(2)
    ]

    summaries = []
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        summaries.append(worker.communicate(timeout=60)[0].strip().splitlines()[-1])

    run = Run(context, job_id)
    assert sorted(one.partition(",")[0] for one in summaries) in (
        ["active", "completed"],
        ["completed", "pending"],
        ["completed", "completed"],  # the second began when all was done
    )
    assert (run.log, run.job.status, run.job.fence) == (["started"], JobStatus.COMPLETED, 1)
