"""Deployments with real servers: started, checked, replaced, and stopped; nothing of them is left."""

import errno
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import psutil
import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.orm import Session, object_session
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.db import session_scope
from app.lifecycle import DeploymentStatus, WorkspaceState
from app.models import Deployment, DeploymentConfig, Workspace
from app.runtime.deployments import supervisor
from app.runtime.deployments.backends.subprocess import SubprocessRuntime
from app.runtime.deployments.contract import DeploymentSpec
from app.runtime.lease import Runner
from app.runtime.processes.leaked_processes import RUN_VARIABLE, kill_leaked_processes, processes_of
from app.runtime.processes.process import Process
from app.runtime.processes.workdir import WorkDirectory
from devstack.processes import free_port
from tests.factories import make_workspace
from tests.runtime.runs import QUICK, tuned, wait_until
from tests.support.aging import time_of
from tests.support.publisher import RecordingPublisher

READY, PENDING, ERROR = DeploymentStatus.READY, DeploymentStatus.PENDING, DeploymentStatus.ERROR
DELETING, DELETED, LOST = DeploymentStatus.DELETING, DeploymentStatus.DELETED, DeploymentStatus.LOST

SERVER = """
import http.server, os, pathlib, signal, sys
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        {answer}
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
OK = "self.send_response(200); self.end_headers(); self.wfile.write(os.environ.get('GREETING', '').encode())"


def server(before: str = "", answer: str = OK) -> list[str]:
    """The command of a small HTTP server."""
    return [sys.executable, "-c", SERVER.format(before=before, answer=answer)]


def deploy(
    session: Session,
    command: list[str] | None = None,
    *,
    workspace: Workspace | None = None,
    name: str = "chat",
    version: int = 1,
    **executor: Any,
) -> UUID:
    """A deployment that waits for the runtime; its id."""
    workspace = workspace or make_workspace(session)
    override = {"command": server() if command is None else command, "port": executor.pop("port", 0)}
    session.add(
        DeploymentConfig(
            workspace_id=workspace.id,
            name="small",
            entity_version=version,
            engine="generic",
            executor_config={"gpu": 0, "override_config": override, **executor},
        )
    )
    row = Deployment(
        workspace_id=workspace.id,
        name=name,
        entity_version=version,
        config="small",
        config_version=version,
    )
    session.add(row)
    session.commit()
    return row.id


@dataclass
class Serving:
    """One supervisor of a deployment, in a thread."""

    context: Context
    id: UUID
    stopping: Event = field(default_factory=Event)
    summary: str | None = None
    _states: list[tuple[DeploymentStatus, str]] = field(default_factory=list)
    """Status and message of each change since the one that was waited for last. Some do not last until a test looks."""

    def start(self) -> "Serving":
        event.listen(Deployment, "after_update", self._note)
        self._thread = Thread(target=self._supervise)
        self._thread.start()
        return self

    def _supervise(self) -> None:
        self.summary = supervisor.supervise(self.context, self.id, stopping=self.stopping)

    def _note(self, _mapper: Any, _connection: Any, row: Deployment) -> None:
        if row.id == self.id:
            state = (row.status, row.status_message)
            event.listen(object_session(row), "after_commit", lambda _: self._states.append(state), once=True)

    def close(self) -> None:
        """Stop supervising, if it has not ended."""
        self.stopping.set()
        self.end()
        event.remove(Deployment, "after_update", self._note)

    def end(self) -> Deployment:
        """The row, once the supervisor has returned."""
        self._thread.join(30)
        assert not self._thread.is_alive(), self.row.status_message
        return self.row

    @property
    def row(self) -> Deployment:
        with session_scope(self.context.sessions) as session:
            return session.get_one(Deployment, self.id)

    def wait_for(self, status: DeploymentStatus, words: str = "") -> Deployment:
        """The row, once it has had that status with those words in its message, now or since the last wait."""

        def has_been() -> bool:
            now = (self.row.status, self.row.status_message)
            for number, (each, message) in enumerate([*self._states, now]):
                if each is status and words in message:
                    del self._states[:number]
                    return True
            return False

        wait_until(has_been, f"{status} '{words}'")
        return self.row

    def ask(self, **values: Any) -> None:
        """Change the row as a request does."""
        with session_scope(self.context.sessions) as session:
            session.execute(update(Deployment).where(Deployment.id == self.id).values(**values))

    @property
    def port(self) -> int:
        return int((self.row.address or "").rpartition(":")[2])


Serve = Callable[..., Serving]


@pytest.fixture
def serve(context: Context) -> Iterator[Serve]:
    """Supervise deployments, which have left nothing behind when the test ends, or it fails."""
    ids = set()
    with ExitStack() as undo:

        def do(deployment_id: UUID, **settings: Any) -> Serving:
            ids.add(deployment_id)
            return undo.enter_context(_supervised(tuned(context, **{**QUICK, **settings}), deployment_id))

        yield do
    left = [pid for one in ids for pid in processes_of(one)]
    for one in ids:
        kill_leaked_processes(one, within_s=10)
    assert left == []


@contextmanager
def _supervised(context: Context, deployment_id: UUID) -> Iterator[Serving]:
    serving = Serving(context, deployment_id).start()
    try:
        yield serving
    finally:
        serving.close()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fetched(serving: Serving, path: str = "/") -> str:
    with urllib.request.urlopen(f"{serving.row.address}{path}", timeout=5) as answer:  # noqa: S310 -- its own server
        text: str = answer.read().decode()
        return text


def is_all_gone(serving: Serving) -> bool:
    """No process, no directory, no host on record."""
    directory = WorkDirectory(serving.context.settings, serving.id).path
    return not (processes_of(serving.id) or directory.exists() or serving.row.host)


def test_the_end_of_one_gives_its_place_to_the_one_that_has_waited_longest(
    session: Session, serve: Serve, publisher: RecordingPublisher
) -> None:
    workspace = make_workspace(session)
    serving = serve(deploy(session, workspace=workspace), deployments_per_workspace=1)
    serving.wait_for(READY)
    for version, name in enumerate(("second", "third"), 2):
        waiting = serve(
            deploy(session, workspace=workspace, name=name, version=version), deployments_per_workspace=1
        )
        waiting.wait_for(PENDING, "waits for a place: 1 deployments of its workspace are served, and 1 may")
    assert publisher.published == []

    serving.ask(status=DELETING)
    serving.end()

    assert [message.facts["deployment"] for message in publisher.published] == ["second"]


def test_it_serves_until_it_is_deleted_and_leaves_nothing(session: Session, serve: Serve) -> None:
    serving = serve(deploy(session, additional_envs={"GREETING": "hello"}))

    ready = serving.wait_for(READY)

    assert ready.status_message == f"Serving at {ready.address}"
    assert fetched(serving) == "hello"
    assert ready.host
    serving.ask(status=DELETING)
    gone = serving.end()
    assert (gone.status, gone.address) == (DELETED, None)
    assert not is_listening(int((ready.address or "").rpartition(":")[2]))
    assert is_all_gone(serving)


def test_a_port_can_be_chosen_and_is_passed_to_the_command(session: Session, serve: Serve) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]

    serving = serve(deploy(session, command, port=port, health_check_path="/"))

    assert serving.wait_for(READY).address == f"http://127.0.0.1:{port}"


def test_it_is_not_ready_before_its_health_check_succeeds(session: Session, serve: Serve, tmp_path) -> None:
    flag = tmp_path / "healthy"
    answer = f"self.send_response(200 if pathlib.Path({str(flag)!r}).exists() else 503); self.end_headers()"
    serving = serve(deploy(session, server(answer=answer), health_check_path="healthz"))

    serving.wait_for(PENDING, "/healthz answers 503")
    flag.touch()
    serving.wait_for(READY)
    flag.unlink()

    # Three failed checks in a row, and it is started anew.
    serving.wait_for(READY, "but /healthz answers 503")
    serving.wait_for(PENDING)
    flag.touch()
    serving.wait_for(READY)


def test_when_its_health_check_passed_last_is_noted_with_each_renewal(
    session: Session, serve: Serve, tmp_path: Path
) -> None:
    flag = tmp_path / "healthy"
    flag.touch()
    answer = f"self.send_response(200 if pathlib.Path({str(flag)!r}).exists() else 503); self.end_headers()"
    serving = serve(deploy(session, server(answer=answer), health_check_path="healthz"))

    first = serving.wait_for(READY).healthy_at
    assert first
    wait_until(lambda: (serving.row.healthy_at or first) > first, "a later check is noted")
    flag.unlink()
    serving.wait_for(PENDING)
    ill_since = time_of(session)
    for _ in range(2):
        renewed = serving.row.lease_until
        wait_until(lambda: serving.row.lease_until != renewed, "the lease is renewed")  # noqa: B023 -- called at once

    assert (serving.row.healthy_at or ill_since) < ill_since


def test_a_passed_health_check_is_noted_every_few_seconds_however_long_the_lease(
    session: Session, serve: Serve
) -> None:
    serving = serve(deploy(session), runtime_lease_seconds=3600)
    first = serving.wait_for(READY).healthy_at

    wait_until(lambda: serving.row.healthy_at != first, "a later check is noted")


def test_a_server_that_dies_is_started_again(session: Session, serve: Serve) -> None:
    serving = serve(deploy(session))
    serving.wait_for(READY)
    first = set(processes_of(serving.id))

    for pid in first:
        psutil.Process(pid).kill()

    serving.wait_for(PENDING)
    serving.wait_for(READY)
    assert not first & set(processes_of(serving.id))


def test_a_server_whose_reaper_is_killed_is_started_again_on_the_same_port(
    session: Session, serve: Serve
) -> None:
    port = free_port()
    serving = serve(deploy(session, port=port))
    serving.wait_for(READY)
    reaper = psutil.Process(min(processes_of(serving.id)))

    reaper.kill()

    serving.wait_for(PENDING)
    serving.wait_for(READY)
    assert serving.row.address == f"http://127.0.0.1:{port}"


def test_one_that_keeps_dying_waits_longer_each_time_and_its_last_output_is_shown(
    session: Session, serve: Serve
) -> None:
    crashing = ["sh", "-c", "echo out of memory; exit 7"]
    serving = serve(deploy(session, crashing), deployment_start_seconds=60)

    serving.wait_for(
        PENDING, "ended with exit code 7; starting again after 1 s; its last output: out of memory"
    )
    serving.wait_for(PENDING, "starting again after 2 s")


def test_one_that_dies_until_its_time_is_over_is_given_up(session: Session, serve: Serve) -> None:
    serving = serve(deploy(session, ["sh", "-c", "echo out of memory; exit 7"]), deployment_start_seconds=2)

    failed = serving.wait_for(ERROR, "not ready within 2 s")

    assert "out of memory" in failed.status_message
    serving.end()
    assert is_all_gone(serving)


def served_once(session: Session, serve: Serve, tmp_path: Path, *, otherwise: str) -> tuple[Serving, Path]:
    """A server that was killed, and a file without which it does something else when it is started again."""
    present = tmp_path / "present"
    present.touch()
    before = f"pathlib.Path({str(present)!r}).exists() or {otherwise}"
    serving = serve(deploy(session, server(before=before)), deployment_start_seconds=1)
    serving.wait_for(READY)
    present.unlink()
    for pid in processes_of(serving.id):
        psutil.Process(pid).kill()
    return serving, present


def test_one_that_has_served_once_is_never_given_up(session: Session, serve: Serve, tmp_path: Path) -> None:
    """It may fail for longer than a first start may take: what it needs comes back, or a person stops it."""
    serving, present = served_once(session, serve, tmp_path, otherwise="sys.exit(9)")

    serving.wait_for(PENDING, "ended with exit code 9; starting again after 2 s")
    serving.wait_for(PENDING, "starting again after 4 s")

    present.touch()
    serving.wait_for(READY)


def test_one_that_hangs_when_it_is_started_again_is_started_once_more(
    session: Session, serve: Serve, tmp_path: Path
) -> None:
    serving, present = served_once(session, serve, tmp_path, otherwise="__import__('time').sleep(1000)")

    serving.wait_for(PENDING, "within 1 s; starting again")

    present.touch()
    serving.wait_for(READY)


def test_the_next_runner_knows_that_it_has_served(session: Session, serve: Serve) -> None:
    deployment_id = deploy(session, ["sh", "-c", "exit 7"])
    session.execute(update(Deployment).values(became_ready_at=clock.now()))
    session.commit()

    serving = serve(deployment_id, deployment_start_seconds=0.001)

    serving.wait_for(PENDING, "starting again after 2 s")


def test_the_output_of_one_that_ends_at_once_is_read(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DeploymentSpec(uuid7(), "ml-team", "chat", 1, command=("sh", "-c", "echo out of memory; exit 7"))
    runtime = SubprocessRuntime(tuned(context, **QUICK).settings, spec)

    class Late(Thread):
        def run(self) -> None:
            wait_until(lambda: runtime._process is None, "the process is closed")
            super().run()

    monkeypatch.setattr("app.runtime.deployments.backends.subprocess.threading.Thread", Late)

    wait_until(lambda: "out of memory" in runtime.observe().message, "its output is shown", timeout_s=20)

    wait_until(runtime.stop, "nothing is left")


def test_one_that_has_died_for_days_is_still_started_again(context: Context) -> None:
    spec = DeploymentSpec(uuid7(), "ml-team", "chat", 1, command=("false",))
    runtime = SubprocessRuntime(tuned(context, **QUICK).settings, spec)
    runtime._crashes = 5000

    wait_until(lambda: "starting again after 60 s" in runtime.observe().message, "it pauses")

    wait_until(runtime.stop, "nothing is left")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "set executor_config.override_config.command"),
        (["no-such-command"], "'no-such-command' cannot be run"),
        ("not a list", "command must be a list of strings"),
    ],
)
def test_a_spec_that_cannot_be_served_is_an_error_that_names_the_field(
    session: Session, serve: Serve, command: Any, words: str
) -> None:
    serving = serve(deploy(session, command))

    assert words in serving.end().status_message
    assert serving.row.status is ERROR
    assert is_all_gone(serving)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"additional_args": ["x" * 200_000]}, "'{program}' cannot be run: Argument list too long"),
        ({}, "'{program}' cannot be run: Exec format error"),
        ({"additional_envs": {"A=B": "c"}}, "'{program}' cannot be run: Invalid argument"),
    ],
)
def test_a_command_that_the_system_does_not_run_is_not_tried_again(
    session: Session, serve: Serve, tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    program = tmp_path / "server"
    program.write_text("neither a script nor a binary\n")
    program.chmod(0o755)

    serving = serve(deploy(session, [str(program)], **wrong))

    failed = serving.end()
    assert (failed.status, failed.status_message) == (ERROR, words.format(program=program))
    assert is_all_gone(serving)


@pytest.mark.parametrize("does_pass", [True, False])
def test_a_host_that_is_out_of_something_is_tried_again_until_the_start_has_taken_too_long(
    session: Session, serve: Serve, monkeypatch: pytest.MonkeyPatch, does_pass: bool
) -> None:
    start, is_over = Process.start, Event()

    def short_of_files(*args: Any, **options: Any) -> Process:
        if is_over.is_set():
            return start(*args, **options)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/srv/reaper.py")

    monkeypatch.setattr(Process, "start", short_of_files)
    serving = serve(deploy(session), deployment_start_seconds=30 if does_pass else 1)

    serving.wait_for(PENDING, "it cannot be started yet: Too many open files")
    if does_pass:
        is_over.set()
        serving.wait_for(READY)
    else:
        failed = serving.end()
        assert failed.status is ERROR
        assert "not ready within 1 s: it cannot be started yet: Too many open files" in failed.status_message
        assert "/srv" not in str(failed.status_history)


def test_where_no_process_may_be_started_none_is(session: Session, serve: Serve) -> None:
    serving = serve(deploy(session), subprocess_provider="off")

    assert "WORKSPACES_SUBPROCESS_PROVIDER is off" in serving.end().status_message
    assert serving.row.host is None


def test_one_that_ignores_sigterm_goes_too(session: Session, serve: Serve) -> None:
    serving = serve(deploy(session, server(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")))
    serving.wait_for(READY)

    serving.ask(status=DELETING)

    assert serving.end().status is DELETED
    assert is_all_gone(serving)


def test_two_messages_start_one_server(session: Session, serve: Serve) -> None:
    deployment_id = deploy(session)
    first = serve(deployment_id)
    first.wait_for(READY)
    started = processes_of(deployment_id)

    second = serve(deployment_id)

    assert "supervised on host" in ((second.end() and second.summary) or "")
    assert processes_of(deployment_id) == started


def test_a_newer_version_takes_the_place_of_the_older_ones_once_it_is_ready(
    session: Session, serve: Serve
) -> None:
    workspace = make_workspace(session)
    old = serve(deploy(session, workspace=workspace))
    old.wait_for(READY)

    new = serve(deploy(session, workspace=workspace, version=2))

    new.wait_for(READY)
    assert old.end().status is DELETED
    assert "Replaced by version 2" in str(old.row.status_history)
    assert is_all_gone(old)
    assert new.row.status is READY


@pytest.mark.parametrize("does_insist", [True, False])
def test_a_newer_version_that_insists_on_the_port_of_an_older_one_takes_it_over(
    session: Session, serve: Serve, does_insist: bool
) -> None:
    workspace = make_workspace(session)
    old = serve(deploy(session, workspace=workspace, port=free_port() if does_insist else 0))
    port = old.wait_for(READY) and old.port

    new = serve(deploy(session, workspace=workspace, version=2, port=port))

    assert new.wait_for(READY).address == f"http://127.0.0.1:{port}"
    assert old.end().status is DELETED
    assert is_all_gone(old)


def test_one_that_never_served_is_in_the_way_too(session: Session, serve: Serve) -> None:
    workspace, port = make_workspace(session), free_port()
    sick = server(answer="self.send_response(503); self.end_headers()")
    old = serve(deploy(session, sick, workspace=workspace, port=port))
    old.wait_for(PENDING, "answers 503")

    new = serve(deploy(session, workspace=workspace, version=2, port=port))

    new.wait_for(READY)
    assert old.end().status is DELETED


def test_an_older_version_that_is_not_in_the_way_serves_on_until_the_newer_one_does(
    session: Session, serve: Serve
) -> None:
    workspace = make_workspace(session)
    other = serve(deploy(session, workspace=make_workspace(session, "elsewhere")))
    old = serve(deploy(session, workspace=workspace))
    port = other.wait_for(READY) and other.port
    old.wait_for(READY)

    new = serve(deploy(session, workspace=workspace, version=2, port=port))

    new.wait_for(PENDING, f"port {port} is in use")
    renewed = new.row.lease_until
    wait_until(lambda: new.row.lease_until != renewed, "it has had time to ask for something")
    assert (old.row.status, other.row.status) == (READY, READY)
    other.ask(status=DELETING)
    new.wait_for(READY)
    assert old.end().status is DELETED


@pytest.mark.parametrize("does_insist", [True, False])
def test_what_is_still_loading_on_another_port_is_not_in_the_way(
    session: Session, serve: Serve, does_insist: bool
) -> None:
    workspace, loading = make_workspace(session), server(answer="self.send_response(503); self.end_headers()")
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        old = serve(deploy(session, loading, workspace=workspace, port=free_port() if does_insist else 0))
        old.wait_for(PENDING, "answers 503")

        new = serve(deploy(session, workspace=workspace, version=2, port=port))

        new.wait_for(PENDING, f"port {port} is in use")
        renewed = new.row.lease_until
        wait_until(lambda: new.row.lease_until != renewed, "it has had time to ask for something")
        assert old.row.status is PENDING


@pytest.mark.parametrize(
    ("command", "executor"),
    [
        ([], {}),
        (["pythonn"], {}),
        (["./server"], {}),
        (["sleep", "1"], {"additional_envs": {"PATH": "/nowhere"}}),
    ],
)
def test_one_that_cannot_start_does_not_take_a_port_over(
    session: Session, serve: Serve, command: list[str], executor: dict[str, Any]
) -> None:
    workspace, port = make_workspace(session), free_port()
    old = serve(deploy(session, workspace=workspace, port=port))
    old.wait_for(READY)

    new = serve(deploy(session, command, workspace=workspace, version=2, port=port, **executor))

    assert new.end().status is ERROR
    assert old.row.status is READY


def test_an_older_version_that_was_just_being_changed_is_replaced_all_the_same(
    session: Session, context: Context, serve: Serve
) -> None:
    workspace = make_workspace(session)
    older = deploy(session, workspace=workspace)
    newer = deploy(session, workspace=workspace, version=2)
    with session_scope(context.sessions) as busy:
        busy.get_one(Deployment, older, with_for_update=True)
        new = serve(newer)
        new.wait_for(READY)
        assert session.get_one(Deployment, older, populate_existing=True).status is DeploymentStatus.CREATED

    def is_replaced() -> bool:
        session.rollback()
        return session.get_one(Deployment, older, populate_existing=True).status is DELETED

    wait_until(is_replaced, "it was asked again")


def test_a_stopping_worker_hands_it_back_to_the_next_one(
    session: Session, serve: Serve, publisher: RecordingPublisher
) -> None:
    serving = serve(deploy(session))
    serving.wait_for(READY)
    publisher.published.clear()

    serving.stopping.set()

    handed = serving.end()
    assert (handed.status, handed.host, handed.address) == (PENDING, None, None)
    assert is_all_gone(serving)
    assert [(message.queue, message.facts["deployment_id"]) for message in publisher.published] == [
        ("runtime", str(serving.id))
    ]
    serve(serving.id).wait_for(READY)


def test_a_runner_that_lost_its_lease_ends_its_server_and_writes_nothing(
    session: Session, serve: Serve
) -> None:
    serving = serve(deploy(session))
    serving.wait_for(READY)

    serving.ask(fence=100, lease_owner="1@0.00")

    assert serving.end().fence == 100
    assert "the lease was lost" in (serving.summary or "")
    wait_until(lambda: processes_of(serving.id) == [], "its server is gone")


def test_a_runner_that_wakes_up_after_it_was_marked_lost_ends_its_server_and_writes_nothing(
    session: Session, serve: Serve
) -> None:
    serving = serve(deploy(session))
    serving.wait_for(READY)

    # In one transaction, or the runner would renew its lease between the two.
    session.execute(update(Deployment).values(lease_until=clock.now() - timedelta(seconds=1)))
    assert supervisor.mark_lost(session) == 1
    session.commit()

    lost = serving.end()
    assert serving.summary == "the lease was lost; its processes were killed"
    assert (lost.status, lost.address, lost.lease_owner) == (LOST, None, None)
    assert lost.host
    wait_until(lambda: processes_of(serving.id) == [], "its server is gone")


def test_a_lost_one_is_taken_up_again_on_its_own_host_and_nowhere_else(
    session: Session, context: Context, serve: Serve
) -> None:
    deployment_id = deploy(session)
    here = Runner.of_this_process(context.settings).host
    session.get_one(Deployment, deployment_id).host = here
    session.get_one(Deployment, deployment_id).lease_owner = "1@0.00"
    session.get_one(Deployment, deployment_id).lease_until = clock.now() - timedelta(seconds=1)
    session.commit()

    assert supervisor.mark_lost(session) == 1
    session.commit()

    row = session.get_one(Deployment, deployment_id, populate_existing=True)
    assert (row.status, row.status_message, row.host) == (LOST, f"runner lost on host '{here}'", here)
    elsewhere = serve(deployment_id, runtime_host="elsewhere")
    assert f"supervised on host '{here}'" in ((elsewhere.end() and elsewhere.summary) or "")
    serve(deployment_id).wait_for(READY)


@contextmanager
def left_behind(deployment_id: UUID) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a deployment whose runner and reaper were killed."""
    with subprocess.Popen(
        ["sleep", "1000"], env={"PATH": os.defpath, RUN_VARIABLE: str(deployment_id)}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("is_servable", [True, False])
def test_what_a_lost_runner_left_behind_is_killed_before_anything_else(
    session: Session, context: Context, serve: Serve, is_servable: bool
) -> None:
    deployment_id = deploy(session)
    if not is_servable:
        session.execute(delete(DeploymentConfig))
    host = Runner.of_this_process(context.settings).host
    session.execute(update(Deployment).values(host=host, status=LOST))
    session.commit()

    with left_behind(deployment_id) as left:
        serve(deployment_id).wait_for(READY if is_servable else ERROR)
        left.wait(10)


@pytest.mark.parametrize("state", [WorkspaceState.DELETING, WorkspaceState.FAILED])
def test_in_a_workspace_that_is_being_deleted_nothing_is_started_and_everything_stopped(
    session: Session, serve: Serve, state: WorkspaceState
) -> None:
    workspace = make_workspace(session, state=state)
    waiting = serve(deploy(session, workspace=workspace))
    stopping = deploy(session, workspace=workspace, name="other", version=2)
    session.get_one(Deployment, stopping).status = DELETING
    session.commit()

    assert "its workspace is being deleted" in ((waiting.end() and waiting.summary) or "")
    assert serve(stopping).end().status is DELETED


@pytest.mark.parametrize("status", [ERROR, DELETED, DeploymentStatus.UNKNOWN])
def test_a_deployment_that_waits_for_nothing_stays_as_it_is(
    session: Session, context: Context, status: DeploymentStatus
) -> None:
    deployment_id = deploy(session)
    session.get_one(Deployment, deployment_id).status = status
    session.commit()

    summary = supervisor.supervise(context, deployment_id, stopping=Event())

    assert summary == f"version 1 {status}, nothing to do"
    assert supervisor.supervise(context, uuid7(), stopping=Event()) == "gone, nothing to do"


def test_a_long_stay_in_one_status_is_one_line_of_its_history(session: Session, serve: Serve) -> None:
    serving = serve(deploy(session, ["sh", "-c", "exit 1"]), deployment_start_seconds=2)

    serving.end()

    assert [one["status"] for one in serving.row.status_history] == ["PENDING", "ERROR"]


def test_in_a_workspace_that_is_being_deleted_what_a_lost_runner_left_is_only_stopped(
    session: Session, serve: Serve
) -> None:
    workspace = make_workspace(session)
    serving = serve(deploy(session, workspace=workspace))
    serving.wait_for(READY)
    serving.ask(lease_owner=None, lease_until=None, fence=100, status=LOST)
    workspace.state = WorkspaceState.DELETING
    session.commit()

    again = serve(serving.id)

    stopped = again.end()
    assert (stopped.status, stopped.address) == (PENDING, None)
    assert "its workspace is being deleted" in stopped.status_message
    assert is_all_gone(again)


def test_what_a_host_has_is_ended_there_whatever_runtime_is_set_by_now(
    session: Session, serve: Serve
) -> None:
    serving = serve(deploy(session))
    serving.wait_for(READY)
    serving.ask(lease_owner=None, lease_until=None, fence=100, status=DELETING)

    elsewhere = serve(serving.id, deployment_runtime="kubernetes")

    assert elsewhere.end().status is DELETED
    assert is_all_gone(elsewhere)


def test_it_is_not_ready_because_another_server_answers_on_its_port(session: Session, serve: Serve) -> None:
    other = serve(deploy(session))
    other.wait_for(READY)
    workspace = make_workspace(session, "elsewhere")

    serving = serve(deploy(session, port=other.port, workspace=workspace), deployment_start_seconds=1)

    failed = serving.end()
    assert (failed.status, f"port {other.port} is in use" in failed.status_message) == (ERROR, True)
    assert READY not in [one["status"] for one in failed.status_history]


def test_a_health_path_may_hold_any_letter(session: Session, serve: Serve) -> None:
    answer = (
        "self.send_response(200 if self.path == '/gr%C3%BC%C3%9Fe%20dich?a=1' else 404); self.end_headers()"
    )

    serving = serve(deploy(session, server(answer=answer), health_check_path="/grüße dich?a=1"))

    serving.wait_for(READY)


def test_one_that_dies_soon_after_each_start_waits_longer_too(session: Session, serve: Serve) -> None:
    flapping = server(before="import threading; threading.Timer(1, os._exit, [3]).start()")
    serving = serve(deploy(session, flapping))

    serving.wait_for(READY)
    serving.wait_for(PENDING, "starting again after 1 s")
    serving.wait_for(READY)
    serving.wait_for(PENDING, "starting again after 2 s")


def test_what_it_prints_is_in_a_file_of_bounded_size_while_it_lives(session: Session, serve: Serve) -> None:
    chatty = server(before="sys.stdout.write('x' * 3_000_000 + '\\nready\\n'); sys.stdout.flush()")
    serving = serve(deploy(session, chatty))
    serving.wait_for(READY)
    directory = WorkDirectory(serving.context.settings, serving.id).path

    wait_until(lambda: (directory / "server.log").read_bytes().endswith(b"ready\n"), "its output is there")
    assert sum(file.stat().st_size for file in directory.glob("server.log*")) <= 2_100_000


def test_a_server_that_puts_a_pipe_in_the_place_of_its_log_blocks_nobody(
    session: Session, serve: Serve
) -> None:
    # Twice: the second time a thread that waits at the pipe would be left.
    script = "rm -f server.log; mkfifo server.log; echo piped; exit 1"
    serving = serve(deploy(session, ["sh", "-c", script]))

    serving.wait_for(PENDING, "starting again after 2 s; its last output: piped")

    wait_until(
        lambda: not any("_copy_output" in one.name for one in threading.enumerate()),
        "no thread reads its output",
    )


def test_a_server_cannot_have_its_output_written_elsewhere(
    session: Session, serve: Serve, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    serving = serve(deploy(session, ["sh", "-c", f"ln -sf {victim} server.log; echo harm; exit 1"]))

    serving.wait_for(PENDING, "its last output: harm")

    assert victim.read_bytes() == b""
