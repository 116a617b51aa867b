"""The start of a runtime worker: runs that no row places on its host, and runs without a live supervisor."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.lifecycle import DeploymentStatus, JobStatus
from app.models import Deployment, Job
from app.runtime.hosts.startup import reap_unsupervised, remove_unowned_runs
from app.runtime.jobs import supervisor
from app.runtime.lease import Runner
from app.runtime.processes import run_directory
from app.runtime.processes.leaked_processes import RUN_VARIABLE
from app.runtime.processes.workdir import WorkDirectory
from tests.factories import make_deployment, make_job, make_workspace
from tests.runtime.runs import dead_runner, tuned


@pytest.fixture
def runs() -> Iterator["Runs"]:
    runs = Runs()
    with runs.owned:
        yield runs


class Runs:
    """Runs that have a directory and a process."""

    def __init__(self) -> None:
        self.owned = ExitStack()
        self._left: dict[UUID, tuple[WorkDirectory, subprocess.Popen[bytes]]] = {}

    def leave(self, context: Context, run: UUID) -> UUID:
        directory = WorkDirectory(context.settings, run)
        directory.make()
        process = subprocess.Popen(["sleep", "1000"], env={"PATH": os.defpath, RUN_VARIABLE: str(run)})
        self.owned.enter_context(process)
        self.owned.callback(process.kill)
        self._left[run] = directory, process
        return run

    def has_directory(self, run: UUID) -> bool:
        return self._left[run][0].path.exists()

    def is_killed(self, run: UUID) -> bool:
        process = self._left[run][1]
        return process.poll() is not None


def test_runs_without_a_row_are_removed_and_runs_of_this_host_are_spared(
    session: Session, context: Context, runs: Runs
) -> None:
    here = Runner.of_this_process(context.settings).host
    workspace = make_workspace(session)
    rows = [
        make_job(session, workspace, "runs", JobStatus.ACTIVE, host=here, lease_owner="1@boot:1"),
        make_job(session, workspace, "skipped", JobStatus.ACTIVE, host=here, lease_owner="1@boot:1"),
        make_deployment(session, workspace),
    ]
    rows[2].host = here
    session.commit()
    running, skipped, serving = [runs.leave(context, row.id) for row in rows]
    session.execute(delete(Job).where(Job.id == skipped))
    session.commit()

    assert remove_unowned_runs(context) == [skipped]

    assert (runs.is_killed(skipped), runs.has_directory(skipped)) == (True, False)
    for spared in (running, serving):
        assert (runs.is_killed(spared), runs.has_directory(spared)) == (False, True)


@pytest.mark.parametrize("model", [Job, Deployment])
@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_the_processes_of_a_run_that_is_on_record_elsewhere_are_killed(
    session: Session, context: Context, runs: Runs, model: type[Job | Deployment], host: str | None
) -> None:
    make = make_job if model is Job else make_deployment
    row = make(session, make_workspace(session))
    row.host = host
    session.commit()
    runs.leave(context, row.id)

    assert remove_unowned_runs(context) == [row.id]

    assert (runs.is_killed(row.id), runs.has_directory(row.id)) == (True, True)


@pytest.mark.parametrize("host", ["elsewhere", "..", "a/b", "/tmp"])
def test_runs_of_other_hosts_in_the_same_data_directory_are_left_alone(
    context: Context, runs: Runs, host: str
) -> None:
    theirs = tuned(context, runtime_host=host)
    run = runs.leave(theirs, uuid7())

    assert remove_unowned_runs(context) == []
    assert (runs.is_killed(run), runs.has_directory(run)) == (False, True)
    assert WorkDirectory(theirs.settings, run).path.parent.parent == context.settings.data_dir / "runs"

    assert remove_unowned_runs(theirs) == [run]


def test_runs_of_another_installation_in_the_same_data_directory_are_left_alone(
    context: Context, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as another:
        another.setattr(run_directory, "_installations", {context.settings.database_url: uuid7()})
        run = runs.leave(context, uuid7())

    assert remove_unowned_runs(context) == []
    assert (runs.is_killed(run), runs.has_directory(run)) == (False, True)


def test_runs_without_a_live_supervisor_end_at_the_start_without_a_thread_for_them(
    session: Session, context: Context, runs: Runs
) -> None:
    here = Runner.of_this_process(context.settings)
    workspace = make_workspace(session)
    until = clock.now() + timedelta(minutes=1)
    left = {"host": here.host, "lease_owner": dead_runner(context), "lease_until": until}
    alive = {**left, "lease_owner": here.name}
    lost = make_job(session, workspace, "lost", JobStatus.ACTIVE, **left)
    running = make_job(session, workspace, "running", JobStatus.ACTIVE, **alive)
    away = make_job(session, workspace, "away", JobStatus.ACTIVE, **{**left, "host": "elsewhere"})
    waiting = make_job(session, workspace, "waiting", JobStatus.PENDING)
    servers = [
        make_deployment(session, workspace, name, status=DeploymentStatus.READY) for name in ("a", "b", "c")
    ]
    for server, lease in zip(servers, (left, alive, {**left, "host": "elsewhere"}), strict=True):
        for name, value in lease.items():
            setattr(server, name, value)
    session.commit()
    rows = [lost, running, away, waiting, *servers]
    for row in rows:
        runs.leave(context, row.id)

    reap_unsupervised(context)

    assert [row for row in rows if runs.is_killed(row.id)] == [lost, servers[0]]
    for row in rows:
        session.refresh(row)
    assert [(job.status, job.host) for job in (lost, running, away, waiting)] == [
        (JobStatus.ERROR, None),
        (JobStatus.ACTIVE, here.host),
        (JobStatus.ACTIVE, "elsewhere"),
        (JobStatus.PENDING, None),
    ]
    assert {(one.status, one.lease_owner) for one in servers} == {
        (DeploymentStatus.READY, dead_runner(context)),
        (DeploymentStatus.READY, here.name),
    }


def test_a_run_that_cannot_be_reaped_does_not_stop_the_others(
    session: Session, context: Context, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Runner.of_this_process(context.settings).host
    workspace = make_workspace(session)
    names = ("first", "second")
    first, second = [
        make_job(session, workspace, name, JobStatus.ACTIVE, host=here, lease_owner=dead_runner(context))
        for name in names
    ]
    session.commit()
    reap = supervisor.reap

    def reap_all_but_first(context: Context, job_id: UUID) -> str:
        if job_id == first.id:
            raise OSError("no")
        return reap(context, job_id)

    monkeypatch.setattr(supervisor, "reap", reap_all_but_first)
    runs.leave(context, second.id)

    reap_unsupervised(context)

    assert runs.is_killed(second.id)
