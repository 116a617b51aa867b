"""What operators read in Flower: each outcome of a slice as a Celery state with its reason."""

import errno

import pytest
from celery import Task
from celery.exceptions import Retry
from psycopg.errors import QueryCanceled
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from structlog.contextvars import bound_contextvars, clear_contextvars, get_contextvars
from uuid_utils.compat import uuid7

from app.cleanup import engine
from app.lifecycle import JobStatus
from app.models import Deletion
from tests import factories
from workers import celery_app, cleanup_tasks
from workers.celery_app import celery


@pytest.fixture
def run(context, monkeypatch):
    """Run a task of the real Celery app as a worker would, in this process; its result, or what it raised."""
    monkeypatch.setattr(celery_app, "_context", context)
    celery.loader.import_default_modules()
    sent = []
    task = celery.tasks["workspace.cleanup.filesets"]
    monkeypatch.setattr(Task, "signature_from_request", capture(sent))

    def call(deletion_id):
        task.push_request(id="t-1", called_directly=False, retries=0, is_eager=False, args=(), kwargs={})
        try:
            return task.run(deletion_id=str(deletion_id), workspace="ml-team", phase="filesets", attempt=0)
        finally:
            task.pop_request()

    call.sent = sent
    return call


def capture(sent):
    """Keep what a retry would send instead of sending it."""
    original = Task.signature_from_request

    def record(self, request=None, args=None, kwargs=None, **options):
        signature = original(self, request, args, kwargs, **options)
        sent.append((signature, kwargs, options))
        signature.apply_async = lambda *_, **__: None
        return signature

    return record


@pytest.fixture
def delete_workspace(session, client):
    def delete():
        response = client.delete("/apis/entities/v2/workspaces/ml-team")
        return response.json["deletion_id"]

    return delete


def test_progress_is_a_success_that_says_how_much(session, delete_workspace, run, monkeypatch):
    monkeypatch.setattr(engine, "_SHARED_PART", 0)
    workspace = factories.make_workspace(session)
    factories.make_fileset(session, workspace)
    session.commit()

    assert run(delete_workspace()) == "ml-team filesets: 1 deleted, 0 left"


def test_the_end_is_a_success_that_says_what_went(session, delete_workspace, run):
    factories.make_workspace(session)
    session.commit()

    assert run(delete_workspace()) == "ml-team is gone: it was empty"


def test_a_stale_message_is_a_success_that_says_why_nothing_was_done(session, delete_workspace, run):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete_workspace()
    run(deletion_id)

    assert run(deletion_id) == "ml-team: nothing done, it is DONE"


def test_waiting_is_a_retry_that_names_what_it_waits_for(session, delete_workspace, run):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "train", status=JobStatus.ACTIVE, host="somewhere")
    session.commit()

    with pytest.raises(Retry) as retry:
        run(delete_workspace())

    assert "ml-team jobs/train: cancelling" in str(retry.value.exc)
    assert retry.value.when == 2


def test_a_retry_bears_the_name_of_what_it_is_about_and_has_readable_args(session, delete_workspace, run):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "train", status=JobStatus.ACTIVE, host="somewhere")
    session.commit()
    deletion_id = delete_workspace()

    with pytest.raises(Retry):
        run(deletion_id)

    [(retry, facts, options)] = run.sent
    assert (retry.task, retry.id) == ("workspace.cleanup.jobs", "t-1")
    assert facts["deletion_id"] == deletion_id
    assert options["argsrepr"].startswith("workspace=ml-team attempt=0 phase=jobs")


def test_a_retry_of_a_slice_that_served_another_requester_is_a_message_for_that_deletion(
    session, client, run
):
    ids = {}
    for who in ("ann", "bob"):
        workspace = factories.make_workspace(session, f"{who}s")
        factories.make_job(session, workspace, "train", status=JobStatus.ACTIVE, host="somewhere")
        session.commit()
        answer = client.delete(f"/apis/entities/v2/workspaces/{who}s", headers={"X-NMP-Principal-Id": who})
        ids[who] = answer.json["deletion_id"]

    with pytest.raises(Retry) as retry:
        run(ids["bob"])

    assert str(retry.value.exc).startswith("anns jobs/train: cancelling")
    [(_, facts, options)] = run.sent
    assert facts["deletion_id"] == ids["ann"]
    assert options["argsrepr"].startswith("workspace=anns attempt=0 phase=jobs")


def test_failed_is_a_failure_with_the_reason(session, context, delete_workspace, run, monkeypatch):
    workspace = factories.make_workspace(session)
    factories.make_fileset(session, workspace, "bad")
    session.commit()

    def refuse(*_, **__):
        raise PermissionError("access denied")

    monkeypatch.setattr(type(context.store), "purge_fileset", refuse)

    with pytest.raises(cleanup_tasks.CleanupFailed, match="ml-team is FAILED: filesets/bad: PermissionError"):
        run(delete_workspace())


def test_a_slice_that_came_to_several_kinds_tells_of_all(
    session, context, delete_workspace, run, monkeypatch
):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.COMPLETED)
    factories.make_fileset(session, workspace, "slow")
    session.commit()

    def fail(*_, **__):
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(context.store), "purge_fileset", fail)

    with pytest.raises(Retry) as retry:
        run(delete_workspace())

    text = str(retry.value.exc)
    assert text.startswith("ml-team filesets/slow: TimeoutError: no answer (transient) attempt 1/")
    assert text.endswith(" (before that jobs: 1 deleted, 0 left)")


def test_one_line_of_the_log_tells_of_a_failed_deletion(
    session, context, delete_workspace, run, monkeypatch, caplog
):
    workspace = factories.make_workspace(session)
    fileset = factories.make_fileset(session, workspace, "bad")
    session.commit()

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted", f"{fileset.id}/notes.txt")

    monkeypatch.setattr(type(context.store), "purge_fileset", refuse)
    deletion_id = delete_workspace()
    caplog.clear()

    with pytest.raises(cleanup_tasks.CleanupFailed):
        run(deletion_id)

    [line] = [record for record in caplog.records if "notes.txt" in str(record.msg)]
    path = context.settings.data_dir / "blobs" / "files" / str(workspace.id) / str(fileset.id) / "notes.txt"
    facts = line.msg
    assert (line.levelname, line.exc_info, facts["event"]) == ("ERROR", None, "workspace.cleanup_failed")
    assert (facts["workspace"], facts["deletion_id"]) == ("ml-team", deletion_id)
    assert f"'{path}'" in facts["reason"]
    assert facts["next"].startswith(
        f"mend the cause, then POST /apis/entities/v2/deletions/{deletion_id}/retry"
    )


@pytest.mark.parametrize(
    "task", ["workspace.cleanup.filesets", "workspace.maintenance.sweep", "workspace.maintenance.orphan_scan"]
)
def test_a_failure_that_is_foreseen_has_no_traceback(task):
    celery.loader.import_default_modules()

    assert celery.tasks[task].throws, "Celery would log it as an error, with its traceback"


def test_a_statement_that_is_cancelled_is_told_without_a_traceback(
    session, delete_workspace, run, monkeypatch, caplog
):
    factories.make_fileset(session, factories.make_workspace(session))
    session.commit()

    def cancelled(*_):
        raise OperationalError("DELETE", {}, QueryCanceled("canceling statement due to statement timeout"))

    deletion_id = delete_workspace()
    caplog.clear()
    monkeypatch.setattr("app.cleanup.resource_pass.ResourcePass.run_from", cancelled)

    with pytest.raises(Retry):
        run(deletion_id)

    [line] = [record for record in caplog.records if "57014" in str(record.msg)]
    assert line.msg["event"] == "deletion.backed_off"
    assert "cleanup.slice_failed" not in caplog.text


def test_each_line_of_a_task_names_its_work():
    facts = {"workspace": "ml-team", "deletion_id": "d-1", "attempt": 3, "phase": "jobs"}

    task = celery.tasks["workspace.cleanup.jobs"]
    task.push_request(request_id="r-1")

    celery_app._name_the_work_in_each_line(kwargs=facts, task=task)
    try:
        assert get_contextvars() == {"workspace": "ml-team", "deletion_id": "d-1", "request_id": "r-1"}
    finally:
        clear_contextvars()
        task.pop_request()


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_a_slice_does_of_another_deletion_goes_back_to_no_request_of_its_message(
    session, client, run, is_ours
):
    """If it is another requester's turn, a slice is one of another deletion than its message names."""
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.ACTIVE, host="gpu-1")
    session.commit()
    claimed = client.delete("/apis/entities/v2/workspaces/ml-team").json["deletion_id"]
    named = claimed if is_ours else str(uuid7())
    with bound_contextvars(request_id="r-1", workspace="named", deletion_id=named):
        with pytest.raises(Retry):
            run(named)
        bound = get_contextvars()

    request = {"request_id": "r-1"} if is_ours else {}
    [(_, _, options)] = run.sent
    assert options["headers"] == request
    assert bound == {"workspace": "named" if is_ours else "ml-team", "deletion_id": claimed, **request}


def test_a_database_that_is_away_is_a_retry(session, context, delete_workspace, run):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete_workspace()
    away = type(context).open(context.settings.model_copy(update={"database_url": NOBODY}))
    celery_app._context = away

    with pytest.raises(
        Retry, match=r"database is away: OperationalError: connection failed: .*Connection refused"
    ):
        run(deletion_id)

    assert session.scalars(update(Deletion).values(attempts=0).returning(Deletion.fence)).one() == 0


NOBODY = "postgresql+psycopg://app@127.0.0.1:1/none"
