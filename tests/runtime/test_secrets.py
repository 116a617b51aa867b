"""Secrets in jobs: the value of the moment, for the processes of a step alone."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal
from app.clock import database_now
from app.context import Context
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Job, RoleBinding, Secret, Workspace
from app.services import jobs
from tests.factories import make_binding, make_secret, make_workspace
from tests.runtime.runs import is_all_gone, step, supervised

PRINT = 'printf "%s\\n" "$TOKEN"'
TOKEN = [{"name": "TOKEN", "from_secret": {"name": "token"}}]
THEIRS = [{"name": "TOKEN", "from_secret": {"name": "theirs/token"}}]
ANN = Actor(Principal("ann"), Permission.JOBS_WRITE)


@pytest.fixture(autouse=True)
def workspaces(session: Session) -> dict[str, Workspace]:
    """`mine` and `theirs`, of which Ann is an Editor; both have a secret `token`."""
    made = {name: make_workspace(session, name) for name in ("mine", "theirs")}
    for workspace in made.values():
        make_secret(session, workspace, "token", f"value in {workspace.name}")
        make_binding(session, workspace, "ann", "Editor")
    session.commit()
    return made


def submit(session: Session, *steps: dict[str, Any], actor: Actor = ANN) -> UUID:
    job = jobs.create_job(
        session,
        actor,
        "mine",
        name="train",
        source="tests",
        project=None,
        platform_spec={"steps": list(steps)},
    )
    session.commit()
    return job.id


def replace_value(session: Session, workspace: Workspace, value: str) -> None:
    session.execute(delete(Secret).where(Secret.workspace_id == workspace.id))
    make_secret(session, workspace, "token", value)
    session.commit()


def test_a_step_has_the_value_in_its_environment_and_nowhere_else(session: Session, context: Context) -> None:
    own = step(
        f'{PRINT}; cat /proc/$$/cmdline | tr "\\0" " "; grep -r "value in" . ; ls -A', environment=TOKEN
    )
    job_id = submit(session, own)

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.COMPLETED
    lines = run.log
    assert lines[0] == "value in mine"
    # The script itself has "value in", and is on the command line; the value is not.
    assert not any("value in mine" in line for line in lines[1:])
    assert "value in mine" not in repr(
        {name: getattr(job, name) for name in map(str, Job.__table__.columns.keys())}
    )
    assert is_all_gone(run)


def test_each_step_reads_the_value_when_it_starts(
    session: Session, context: Context, workspaces: dict[str, Workspace], tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    first = step(f'{PRINT}; while [ ! -e "{go_on}" ]; do sleep 0.05; done', "first", environment=TOKEN)
    job_id = submit(session, first, step(PRINT, "second", environment=TOKEN))

    with supervised(context, job_id) as run:
        run.wait_for_line("value in mine")
        replace_value(session, workspaces["mine"], "rotated")
        go_on.touch()
        assert run.end().status is JobStatus.COMPLETED

    assert run.log == ["value in mine", "rotated"]


def test_another_attempt_reads_the_value_again(
    session: Session, context: Context, workspaces: dict[str, Workspace]
) -> None:
    job_id = submit(session, step(PRINT, environment=THEIRS))
    with supervised(context, job_id) as run:
        run.end()
    replace_value(session, workspaces["theirs"], "rotated")

    jobs.rerun(session, ANN, "mine", "train")
    session.commit()
    with supervised(context, job_id) as run:
        run.end()

    assert run.log == ["value in theirs", "rotated"]


def removed(session: Session, workspace: Workspace) -> None:
    session.execute(delete(Secret).where(Secret.workspace_id == workspace.id))


def revoked(session: Session, workspace: Workspace) -> None:
    ours = RoleBinding.workspace_id == workspace.id
    session.execute(update(RoleBinding).where(ours).values(revoked_at=database_now()))


def replaced(session: Session, workspace: Workspace) -> None:
    """Deleted, and made anew under the same name: even one where Ann is an Editor is another workspace."""
    workspace.state = WorkspaceState.DELETING
    session.flush()
    successor = make_workspace(session, workspace.name)
    make_secret(session, successor, "token", "value of a successor")
    make_binding(session, successor, "ann", "Editor")


@pytest.mark.parametrize("change", [removed, revoked, replaced])
def test_a_secret_that_is_not_there_or_not_theirs_any_more_fails_the_job_with_the_reason(
    session: Session, context: Context, workspaces: dict[str, Workspace], change: Any
) -> None:
    job_id = submit(session, step("true", "fine"), step(PRINT, "bad", environment=THEIRS))
    change(session, workspaces["theirs"])
    session.commit()

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert job.error_details == {
        "message": "step 'bad' could not be started: its variable 'TOKEN' needs the secret 'theirs/token', which is "
        "not there any more, or which the requester of this attempt may not use any more"
    }
    assert run.log == []
    assert is_all_gone(run)


def test_without_keys_the_job_says_so(session: Session, context: Context) -> None:
    job_id = submit(session, step(PRINT, environment=TOKEN))

    with supervised(context, job_id, secrets_key_file="") as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert "WORKSPACES_SECRETS_KEY_FILE" in job.error_details["message"]


def test_a_job_that_was_asked_for_while_nobody_logs_in_uses_any_secret(
    client: FlaskClient, session: Session, context: Context
) -> None:
    spec = {"steps": [step(PRINT, environment=THEIRS)]}
    body = {"name": "train", "source": "tests", "spec": {}, "platform_spec": spec}
    made = client.post("/apis/jobs/v2/workspaces/mine/jobs", json=body)
    assert made.status_code == 201, made.text

    with supervised(context, UUID(made.json["id"])) as run:
        assert run.end().status is JobStatus.COMPLETED

    assert run.log == ["value in theirs"]
