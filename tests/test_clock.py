"""Leases, due times and heartbeats follow the database's clock, whatever the clocks of the hosts say."""

import ast
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import app
from app import clock
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Finished, Idle
from app.cli import main
from app.context import Context
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeploymentStatus, JobStatus
from app.models import Deletion, DeletionEvent, Deployment, Job
from tests.factories import make_deployment, make_fileset, make_job, make_workspace
from tests.support.aging import age_everything, note_sweeps
from tests.support.publisher import RecordingPublisher
from tests.support.sources import parsed

ROOT = Path(app.__file__).parents[1]
MODULES = [
    str(path.relative_to(ROOT)) for top in ("app", "workers") for path in sorted((ROOT / top).rglob("*.py"))
]

# --- what the code reads ------------------------------------------------------------------------------------

COMPARED = {
    *(
        "lease_until",
        "next_run_at",
        "purge_after",
        "next_reattempt_at",
        "last_enqueued_at",
        "phase_started_at",
    ),
    *(
        "last_sweep_at",
        "last_success_at",
        "requested_at",
        "started_at",
        "resumed_at",
        "heartbeat_at",
        "last_progress_at",
    ),
}
"""Columns that one process writes and another compares with the time."""

FOR_PEOPLE = {
    "app/runtime/jobs/log_writer.py": "the time of a line of a job's log",
    "app/health/diagnosis.py": "the clock of this host, compared with that of the database",
    "app/maintenance/orphan_scan.py": "the age of files, whose times are those of the store",
}
"""Modules below that may ask for the time of their process, and for what."""

WITH_LEASES = (
    "app/cleanup/",
    "app/maintenance/",
    "app/runtime/",
    "workers/",
    "app/lease.py",
    "app/health/",
)


def reads_a_hosts_clock(node: ast.AST) -> bool:
    """`clock.now()`, `now()` of that module, or a clock of Python that can be set."""
    match node:
        case ast.Attribute(value=ast.Name(id="clock"), attr="now"):
            return True
        case ast.Attribute(value=ast.Name(id="datetime"), attr="now" | "utcnow"):
            return True
        case ast.Attribute(value=ast.Name(id="time"), attr="time"):
            return True
        case ast.ImportFrom(module="app.clock", names=names):
            return any(one.name == "now" for one in names)
    return False


def mentions(tree: ast.AST, names: set[str]) -> set[str]:
    """Which of the names a module uses as an attribute or an argument."""
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}
    return used & names


@pytest.mark.parametrize("module", MODULES)
def test_no_module_that_writes_or_compares_leases_reads_the_clock_of_its_host(module: str) -> None:
    if module in FOR_PEOPLE or module == "app/clock.py":
        return
    tree = parsed(ROOT / module)
    if module.startswith(WITH_LEASES) or mentions(tree, COMPARED):
        lines = [node.lineno for node in ast.walk(tree) if reads_a_hosts_clock(node)]
        assert not lines, (
            f"{module}, line {lines}: hosts have different clocks. Write `database_now()` or `seconds_from_now(…)` of "
            "app.clock into the statement, and compare there; use `time.monotonic()` for a deadline inside the "
            "process. If only people read that time, name the module in FOR_PEOPLE and say which time it is."
        )


OF_JOBS = ("app/services/job", "app/services/deployments", "app/api/jobs/", "app/api/models/deployments")


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(OF_JOBS)])
def test_the_time_of_a_jobs_or_deployments_last_change_is_the_databases(module: str) -> None:
    """The sweep goes by it."""
    tree = parsed(ROOT / module)
    written = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.keyword)
        and "updated_at" in ast.dump(node)
        and any(reads_a_hosts_clock(one) for one in ast.walk(node.value))
    ]
    assert not written, (
        f"{module}, line {written}: write `database_now()`, or call `touch` of app.services.jobs."
    )


def test_the_exceptions_exist_and_need_to_be_exceptions() -> None:
    for module in FOR_PEOPLE:
        assert any(reads_a_hosts_clock(node) for node in ast.walk(parsed(ROOT / module))), (
            f"{module} is no exception"
        )


# --- what it does -------------------------------------------------------------------------------------------

APART = [-60, 31, 60, 90]
"""Seconds; a lease of a runner lasts 30."""


@pytest.fixture(params=APART, ids="{:+} s".format)
def clock_of_this_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this process is wrong, and that of the database is right."""
    true_time = clock.now
    monkeypatch.setattr(clock, "now", lambda: true_time() + timedelta(seconds=request.param))


def renewed(context: Context, session: Session) -> tuple[Job, Deployment]:
    """A job and a deployment whose supervisors renewed their leases a moment ago."""
    workspace = make_workspace(session)
    lease: dict[str, Any] = {"host": "here", "lease_owner": "7@1.00", "fence": 3}
    job = make_job(session, workspace, "train", JobStatus.ACTIVE, **lease)
    deployment = make_deployment(session, workspace, "chat", DeploymentStatus.READY, **lease)
    session.flush()
    for row in (job, deployment):
        row.lease_until = func.now() + timedelta(seconds=context.settings.runtime_lease_seconds)
    session.commit()
    return job, deployment


@pytest.mark.usefixtures("clock_of_this_host")
def test_a_sweep_ends_nothing_whose_supervisor_renews_its_lease(session: Session, context: Context) -> None:
    job, deployment = renewed(context, session)

    assert CliRunner().invoke(main, ["cleanup", "sweep"], obj=context).exit_code == 0

    session.expire_all()
    assert (job.status, job.fence, deployment.status, deployment.fence) == (
        *(JobStatus.ACTIVE, 3),
        *(DeploymentStatus.READY, 3),
    )


@pytest.mark.usefixtures("clock_of_this_host")
def test_a_sweep_ends_what_has_lost_its_supervisor(session: Session, context: Context) -> None:
    job, deployment = renewed(context, session)
    age_everything(session, context.settings.runtime_lease_seconds)
    note_sweeps(session, context.settings.runtime_lease_seconds)

    assert CliRunner().invoke(main, ["cleanup", "sweep"], obj=context).exit_code == 0

    session.expire_all()
    assert (job.status, deployment.status) == (JobStatus.ERROR, DeploymentStatus.LOST)


def delete(client: FlaskClient) -> UUID:
    answer = client.delete("/apis/entities/v2/workspaces/ml-team")
    return UUID(answer.json["deletion_id"])


@pytest.mark.usefixtures("clock_of_this_host")
def test_a_worker_robs_no_other_of_its_deletion(
    session: Session, context: Context, client: FlaskClient
) -> None:
    make_fileset(session, make_workspace(session))
    session.commit()
    deletion_id = delete(client)
    deletion = session.get_one(Deletion, deletion_id)
    deletion.lease_owner, deletion.fence, deletion.started_at = "another", 1, deletion.requested_at
    deletion.next_run_at = deletion.purge_after = func.now()
    deletion.lease_until = func.now() + timedelta(seconds=context.settings.lease_seconds)
    session.commit()

    assert run_slice(context, deletion_id, owner="w") == Idle("another works on it")
    assert "worker_lost" not in session.scalars(select(DeletionEvent.event)).all()


@pytest.mark.usefixtures("clock_of_this_host")
def test_a_claim_lasts_as_long_as_the_setting_says(
    session: Session, context: Context, client: FlaskClient
) -> None:
    make_fileset(session, make_workspace(session))
    session.commit()
    deletion_id = delete(client)
    deletion = session.get_one(Deletion, deletion_id)
    deletion.next_run_at = deletion.purge_after = func.now()
    session.commit()
    seen: list[float] = []

    def look(*_: object, **__: object) -> None:
        left = select(Deletion.lease_until - func.now()).where(Deletion.id == deletion_id)
        seen.append(session.scalars(left).one().total_seconds())

    object.__setattr__(context.store, "purge_fileset", look)
    run_slice(context, deletion_id, owner="w")

    assert 0 < seen[0] <= context.settings.lease_seconds


def test_a_deletion_starts_at_once_whichever_clock_the_api_has(
    session: Session, context: Context, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_workspace(session)
    session.commit()
    with monkeypatch.context() as patched:
        true_time = clock.now
        patched.setattr(clock, "now", lambda: true_time() + timedelta(seconds=90))
        deletion_id = delete(client)

    assert isinstance(run_slice(context, deletion_id, owner="w"), Finished)


def test_the_message_of_a_new_job_is_made_good_whichever_clock_the_api_has(
    session: Session,
    context: Context,
    client: FlaskClient,
    publisher: RecordingPublisher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_workspace(session)
    session.commit()
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["true"]}}
    job = {"name": "train", "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
    with monkeypatch.context() as patched:
        true_time = clock.now
        patched.setattr(clock, "now", lambda: true_time() + timedelta(seconds=90))
        assert client.post("/apis/jobs/v2/workspaces/ml-team/jobs", json=job).status_code == 201
    publisher.published.clear()
    age_everything(session, context.settings.requeue_after_seconds + 1)
    note_alive(session, Process.RUNTIME, ["here"], job_slots=1)
    session.commit()
    publisher.empty_queues.add("runtime.here")

    CliRunner().invoke(main, ["cleanup", "sweep"], obj=context)

    assert [message.facts["job"] for message in publisher.published] == ["train"]
