"""Results of steps: files in their results directory, stored in the fileset of the job."""

import sys
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Fileset, Workspace
from app.runtime.processes.leaked_processes import processes_of
from app.storage.blob_store import ReceivedUpload
from tests.runtime.runs import Run, is_all_gone, step, submit, supervised, wait_until


def stored(run: Run) -> dict[str, bytes]:
    store, job = run.context.store, run.job
    with run.context.sessions() as session:
        fileset = session.query(Fileset).filter_by(workspace_id=job.workspace_id, name=job.fileset).one()
    files = store.files(job.workspace_id, fileset.id)
    return {file.path: b"".join(store.read(job.workspace_id, fileset.id, file.path)) for file in files}


def test_files_and_directories_left_as_results_are_stored_and_recorded_by_name(
    session: Session, context: Context
) -> None:
    first = step(
        "cd $WORKSPACES_RESULTS_DIR; echo 0.9 > score; mkdir -p model/deep; echo w > model/deep/weights", "a"
    )
    second = step("ls $WORKSPACES_RESULTS_DIR; echo 0.7 > $WORKSPACES_RESULTS_DIR/score", "b")
    job_id = submit(session, first, second)

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, run.log) == (JobStatus.COMPLETED, [])
    assert stored(run) == {"results/score": b"0.7\n", "results/model/deep/weights": b"w\n"}
    assert sorted((one["name"], one["artifact_url"]) for one in job.results) == [
        ("model", "/job-fileset-train#results/model"),
        ("score", "/job-fileset-train#results/score"),
    ]


def test_results_of_a_step_that_fails_are_kept(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo half > $WORKSPACES_RESULTS_DIR/partial; exit 1"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, [one["name"] for one in job.results]) == (JobStatus.ERROR, ["partial"])
    assert stored(run) == {"results/partial": b"half\n"}


def test_a_result_takes_the_whole_place_of_an_earlier_one_of_its_name(
    session: Session, context: Context
) -> None:
    first = step(
        "cd $WORKSPACES_RESULTS_DIR; mkdir -p out/deep; echo 1 > out/deep/a; echo 1 > out/b; echo 1 > kept",
        "a",
    )
    second = step("echo 2 > $WORKSPACES_RESULTS_DIR/out", "b")
    job_id = submit(session, first, second)

    with supervised(context, job_id) as run:
        run.end()

    assert stored(run) == {"results/out": b"2\n", "results/kept": b"1\n"}


def test_links_and_special_files_are_not_stored(session: Session, context: Context) -> None:
    script = (
        "cd $WORKSPACES_RESULTS_DIR; ln -s /etc/hostname link; ln -s /etc dir; mkfifo pipe; mkdir real;"
        "ln -s /etc real/dir; ln -s /etc/hostname real/link; mkfifo real/pipe; echo 1 > real/file; mkdir -m 0 closed"
    )
    job_id = submit(session, step(script))

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, [one["name"] for one in job.results]) == (JobStatus.COMPLETED, ["real"])
    assert stored(run) == {"results/real/file": b"1\n"}
    assert is_all_gone(run)


def test_a_results_directory_that_became_a_link_leads_nowhere(session: Session, context: Context) -> None:
    script = "rm -r $WORKSPACES_RESULTS_DIR; ln -s /etc $WORKSPACES_RESULTS_DIR"
    job_id = submit(session, step(script, "a"), step("echo 1 > $WORKSPACES_RESULTS_DIR/one", "b"))

    with supervised(context, job_id) as run:
        assert run.end().status is JobStatus.COMPLETED

    assert stored(run) == {"results/one": b"1\n"}


@pytest.mark.parametrize("name", [r"'a\nb'", r"'\377'"])
def test_a_result_that_could_never_be_asked_for_ends_the_job_with_the_reason(
    session: Session, context: Context, name: str
) -> None:
    job_id = submit(session, step(f"echo 1 > $WORKSPACES_RESULTS_DIR/$(printf {name})"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert "control characters, U+FFFE or U+FFFF, or is not UTF-8" in job.error_details["message"]
    assert stored(run) == {}


def test_results_nested_too_deep_end_the_job_and_name_no_path_of_the_server(
    session: Session, context: Context
) -> None:
    deep = "cd $WORKSPACES_RESULTS_DIR; n=$(printf 'a%.0s' $(seq 250)); for i in $(seq 20); do mkdir $n; cd $n; done; "
    job_id = submit(session, step(deep + "echo 1 > one"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert job.status is JobStatus.ERROR
    assert "File name too long: 'results/aaa" in job.error_details["message"]
    assert str(context.settings.data_dir) not in job.error_details["message"]
    assert is_all_gone(run)


def test_a_directory_nested_deeper_than_python_can_go_does_not_keep_a_job(
    session: Session, context: Context
) -> None:
    script = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')"
    job_id = submit(session, step(f'{sys.executable} -c "{script}"'))

    with supervised(context, job_id) as run:
        assert run.end().status is JobStatus.COMPLETED

    assert is_all_gone(run)


def test_without_its_fileset_a_job_cannot_keep_results(session: Session, context: Context) -> None:
    job_id = submit(session, step("echo ready; echo 1 > $WORKSPACES_RESULTS_DIR/one; sleep 0.5"))

    with supervised(context, job_id) as run:
        run.wait_for_line("ready")
        session.execute(delete(Fileset))
        session.commit()
        job = run.end()

    message = "the results of step 'main' could not be stored: the fileset 'job-fileset-train' was deleted"
    assert (job.status, job.error_details) == (JobStatus.ERROR, {"message": message})


def test_many_results_are_not_stored_to_the_end_by_a_job_that_is_cancelled(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step("cd $WORKSPACES_RESULTS_DIR; mkdir all; cd all; seq 20000 | xargs touch"))

    with supervised(context, job_id) as run:
        blobs = run.context.settings.data_dir / "blobs"
        wait_until(lambda: any(path.is_file() for path in blobs.rglob("*")), "it is being stored")
        run.ask(JobStatus.CANCELLING)
        assert run.end().status is JobStatus.CANCELLED

    assert len(stored(run)) < 20000


def test_a_result_that_was_on_its_way_when_the_workspace_was_deleted_is_not_published(
    session: Session, context: Context
) -> None:
    """Between the check of the workspace and the last byte of a large file there is time for a DELETE and its purge."""
    job_id = submit(session, step("truncate -s 3M $WORKSPACES_RESULTS_DIR/one"))
    staged = context.store.stage

    def delete_meanwhile(*place: Any, at_most: int) -> ReceivedUpload:
        assert at_most == 3 * 1024 * 1024, "or a bucket rejects very large results"
        on_its_way = staged(*place, at_most=at_most)
        session.execute(update(Workspace).values(state=WorkspaceState.DELETING))
        session.commit()
        return on_its_way

    with (
        patch.object(context.store, "stage", delete_meanwhile),
        supervised(context, job_id) as run,
    ):
        job = run.end()

    assert "the workspace is being deleted" in job.error_details["message"]
    assert stored(run) == {}


@pytest.mark.parametrize(
    ("limit_s", "status"),
    [(0, JobStatus.CANCELLED), (1, JobStatus.ERROR)],
    ids=["cancelled", "over its limit"],
)
def test_a_job_that_is_to_end_does_not_finish_storing_its_results(
    session: Session, context: Context, limit_s: float, status: JobStatus
) -> None:
    job_id = submit(session, step("truncate -s 1T $WORKSPACES_RESULTS_DIR/huge"))

    with supervised(context, job_id, job_time_limit_seconds=limit_s) as run:
        staging = run.context.settings.data_dir / "blobs" / "staging"
        wait_until(lambda: [path for path in staging.rglob("*") if path.is_file()], "it is being stored")
        if not limit_s:
            run.ask(JobStatus.CANCELLING)
        job = run.end()

    assert (job.status, job.results, stored(run)) == (status, [], {})
    assert not any(staging.rglob("*"))


def test_nothing_is_stored_in_a_workspace_that_is_being_deleted(session: Session, context: Context) -> None:
    """Its purge may be over already, and would not find it."""
    job_id = submit(session, step("echo ready; echo 1 > $WORKSPACES_RESULTS_DIR/one; sleep 0.5"))

    with supervised(context, job_id) as run:
        run.wait_for_line("ready")
        session.execute(update(Workspace).values(state=WorkspaceState.DELETING))
        session.commit()
        run.end()

    assert stored(run) == {}
    assert (processes_of(job_id), run.job.host) == ([], None)
    assert list((context.settings.data_dir / "blobs").rglob("*one*")) == []
