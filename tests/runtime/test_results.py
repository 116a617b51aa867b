"""Results of steps: files in their results directory, stored in the fileset of the job."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.clock import database_now
from app.context import Context
from app.db import Sessions
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Fileset, Job, JobLog, Workspace
from app.runtime import leased_row
from app.runtime.processes.leaked_processes import processes_of
from app.runtime.processes.workdir import WorkDirectory
from app.storage.blob_store import ReceivedUpload
from tests.runtime.runs import QUICK, Run, is_all_gone, step, submit, supervised, tuned, wait_until


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


def test_results_go_to_the_folder_of_the_job_in_a_fileset_that_others_use_too(
    session: Session, context: Context
) -> None:
    first = step(
        "cd $WORKSPACES_RESULTS_DIR; echo 1 > score; mkdir out; echo 1 > out/a; ln -s ../../.. up", "a"
    )
    second = step("echo $NEMO_JOB_FILESET; echo 2 > $WORKSPACES_RESULTS_DIR/out", "b")
    job_id = submit(session, first, second, output_location="shared")
    workspace_id, fileset_id = session.execute(select(Fileset.workspace_id, Fileset.id)).one()
    for path in ("results/score", "jobs/other/results/score"):
        context.store.publish(context.store.stage(workspace_id, fileset_id, path, [b"theirs"]))

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, run.log) == (JobStatus.COMPLETED, ["shared"])
    assert session.execute(select(JobLog.job_id, JobLog.fileset_id, JobLog.base_path, JobLog.job)).all() == [
        (job_id, fileset_id, "jobs/train", "train")
    ]
    assert stored(run) == {
        "jobs/other/results/score": b"theirs",
        "jobs/train/results/out": b"2\n",
        "jobs/train/results/score": b"1\n",
        "results/score": b"theirs",
    }
    assert sorted((one["name"], one["artifact_url"]) for one in job.results) == [
        ("out", "/shared#jobs/train/results/out"),
        ("score", "/shared#jobs/train/results/score"),
    ]
    assert job.status_details["results_not_stored"] == {"up": "a link that leads out of the job's directory"}


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


def test_links_inside_the_work_directory_are_followed_and_all_others_are_named(
    session: Session, context: Context
) -> None:
    """The layout is that of the Hugging Face cache: snapshots of links to blobs, and a link to the latest one."""
    script = (
        "mkdir blobs; echo w > blobs/abc; cd $WORKSPACES_RESULTS_DIR;"
        "mkdir -p model/snapshots/1 real; ln -s ../../../../blobs/abc model/snapshots/1/weights;"
        "ln -s $HOME/blobs/abc absolute; ln -s model/snapshots/1 latest; ln -s .. real/up; ln -s loop loop;"
        "ln -s /etc/hostname link; ln -s /etc dir; ln -s /etc/hostname real/link; ln -s ../../../.. real/out;"
        "ln -s nowhere dangling; mkfifo real/pipe; echo 1 > real/file"
    )
    job_id = submit(session, step(script))

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, job.error_details) == (JobStatus.COMPLETED, None)
    assert stored(run) == {
        "results/absolute": b"w\n",
        "results/latest/weights": b"w\n",
        "results/model/snapshots/1/weights": b"w\n",
        "results/real/file": b"1\n",
    }
    assert sorted(one["name"] for one in job.results) == ["absolute", "latest", "model", "real"]
    out, circle = "a link that leads out of the job's directory", "a link that leads back to itself"
    assert job.status_details["results_not_stored"] == {
        "dangling": "a link that leads to nothing",
        "dir": out,
        "link": out,
        "loop": circle,
        "real/link": out,
        "real/out": out,
        "real/pipe": "it is neither a file nor a directory",
        "real/up": "a link to a directory that it lies in",
    }
    assert is_all_gone(run)


def test_a_work_directory_that_became_a_link_gives_no_results(
    session: Session, context: Context, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "secret").write_text("of others")
    (tmp_path / "results" / "secret").chmod(0o600)
    script = f'cd ..; mv "$HOME" "$HOME.away"; ln -s {tmp_path} "$HOME"'
    job_id = submit(session, step(script))

    with supervised(context, job_id) as run:
        run.end()

    assert (run.job.results, stored(run)) == ([], {})
    assert (tmp_path / "results" / "secret").read_text() == "of others"
    assert not os.path.lexists(WorkDirectory(context.settings, job_id).path)


def test_a_results_directory_that_became_a_link_leads_nowhere(session: Session, context: Context) -> None:
    script = "rm -r $WORKSPACES_RESULTS_DIR; ln -s /etc $WORKSPACES_RESULTS_DIR"
    job_id = submit(session, step(script, "a"), step("echo 1 > $WORKSPACES_RESULTS_DIR/one", "b"))

    with supervised(context, job_id) as run:
        assert run.end().status is JobStatus.COMPLETED

    assert stored(run) == {"results/one": b"1\n"}


@pytest.mark.parametrize(
    ("name", "shown"), [(r"'a\nb'", "a\nb"), (r"'\377'", r"\xff")], ids=["line end", "no UTF-8"]
)
def test_a_result_that_could_never_be_asked_for_costs_that_result_alone(
    session: Session, context: Context, name: str, shown: str
) -> None:
    script = f"cd $WORKSPACES_RESULTS_DIR; echo 1 > $(printf {name}); echo a > alpha; echo z > zeta"
    job_id = submit(session, step(script))

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, [one["name"] for one in job.results]) == (JobStatus.COMPLETED, ["alpha", "zeta"])
    assert stored(run) == {"results/alpha": b"a\n", "results/zeta": b"z\n"}
    [(named, why)] = job.status_details["results_not_stored"].items()
    assert (named, "control characters, U+FFFE or U+FFFF, or is not UTF-8" in why) == (shown, True)


def test_a_result_in_a_file_s_place_costs_that_result_alone(session: Session, context: Context) -> None:
    """A name that only the store can refuse."""
    job_id = submit(session, step("cd $WORKSPACES_RESULTS_DIR; echo 1 > one; echo 2 > two"))
    stage = context.store.stage

    def refuse_one(workspace: Any, fileset: Any, path: str, *rest: Any, **more: Any) -> ReceivedUpload:
        if path.endswith("one"):
            raise IsADirectoryError(f"{path} is a directory")
        return stage(workspace, fileset, path, *rest, **more)

    with patch.object(context.store, "stage", refuse_one), supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, [one["name"] for one in job.results]) == (JobStatus.COMPLETED, ["two"])
    assert job.status_details["results_not_stored"] == {"one": "results/one is a directory"}


def test_results_nested_too_deep_are_named_by_a_path_that_is_not_the_server_s(
    session: Session, context: Context
) -> None:
    script = (
        "import os; os.chdir(os.environ['WORKSPACES_RESULTS_DIR']); open('kept', 'w').write('1')\n"
        "for _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\nopen('deep', 'w').write('1')"
    )
    command = [sys.executable, "-c", script]
    job_id = submit(session, {"name": "main", "executor": {"provider": "subprocess", "command": command}})

    with supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, [one["name"] for one in job.results]) == (JobStatus.COMPLETED, ["kept"])
    assert list(job.status_details["results_not_stored"].values()) == ["its path has more than 1024 bytes"]
    assert str(context.settings.data_dir) not in str(job.status_details)
    assert is_all_gone(run)


@pytest.mark.parametrize(
    ("limits", "content", "message"),
    [
        (
            {"max_upload_bytes": 10},
            "echo 12345678901 > big",
            "it has 12 bytes, more than the 10 of WORKSPACES_MAX",
        ),
        ({}, "truncate -s 1G big", "of its 1073741824 bytes more than 67108864 are holes"),
    ],
    ids=["larger than an upload", "mostly holes"],
)
def test_a_result_that_is_too_large_is_named(
    session: Session, context: Context, limits: dict[str, Any], content: str, message: str
) -> None:
    job_id = submit(session, step(f"cd $WORKSPACES_RESULTS_DIR; {content}; echo 1 > small"))

    with supervised(context, job_id, **limits) as run:
        job = run.end()

    assert (job.status, stored(run)) == (JobStatus.COMPLETED, {"results/small": b"1\n"})
    assert message in job.status_details["results_not_stored"]["big"]


def test_more_results_than_a_job_can_have_are_named(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.jobs.step_results.MOST_RESULTS", 2)
    job_id = submit(session, step("cd $WORKSPACES_RESULTS_DIR; touch a b c"))

    with supervised(context, job_id) as run:
        job = run.end()

    assert [one["name"] for one in job.results] == ["a", "b"]
    assert job.status_details["results_not_stored"] == {"c": "a job has at most 2 results"}


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


# --- jobs that have to end, and stores that are away ------------------------------------------------------

LEAVES = "echo half > $WORKSPACES_RESULTS_DIR/partial; echo ready; sleep 60"


@pytest.mark.parametrize("how", ["cancelled", "over its limit", "stopped"])
def test_a_job_that_has_to_end_keeps_what_it_has_left_as_results(
    session: Session, context: Context, how: str
) -> None:
    job_id = submit(session, step(LEAVES))
    limit_s = 3 if how == "over its limit" else 0

    with supervised(context, job_id, job_time_limit_seconds=limit_s) as run:
        run.wait_for_line("ready")
        if how == "cancelled":
            run.ask(JobStatus.CANCELLING)
        if how == "stopped":
            run.stopping.set()
        job = run.end()

    assert job.status is (JobStatus.CANCELLED if how == "cancelled" else JobStatus.ERROR)
    assert ([one["name"] for one in job.results], stored(run)) == (
        ["partial"],
        {"results/partial": b"half\n"},
    )
    assert is_all_gone(run)


def test_a_job_that_is_deleted_stores_nothing_more(session: Session, context: Context) -> None:
    job_id = submit(session, step(LEAVES))

    run = Run(tuned(context, **QUICK), job_id).start()
    run.wait_for_line("ready")
    with patch.object(context.store, "stage", side_effect=AssertionError("stored")) as stage:
        session.execute(update(Job).values(status=JobStatus.CANCELLING, delete_requested_at=database_now()))
        session.commit()
        wait_until(lambda: run.summary, "the supervisor ends")

    assert (stage.called, run.summary) == (False, "cancelled; removed, as requested")
    assert processes_of(job_id) == []


def fails_until(is_back: Event, stage: Any) -> Any:
    def stage_later(*place: Any, **more: Any) -> ReceivedUpload:
        if not is_back.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return stage(*place, **more)

    return stage_later


def test_a_store_that_is_full_at_the_end_of_a_job_is_tried_again_and_the_job_says_so(
    session: Session, context: Context
) -> None:
    job_id, is_back = submit(session, step("echo 1 > $WORKSPACES_RESULTS_DIR/trained")), Event()

    with (
        patch.object(context.store, "stage", fails_until(is_back, context.store.stage)),
        supervised(context, job_id) as run,
    ):
        wait_until(lambda: "waiting_for" in run.job.status_details, "it says what it waits for")
        waiting = run.job.status_details["waiting_for"]
        assert run.job.status is JobStatus.ACTIVE
        is_back.set()
        job = run.end()

    assert waiting.startswith("its results to be stored: The storage has no space left")
    assert (job.status, job.status_details, stored(run)) == (
        JobStatus.COMPLETED,
        {},
        {"results/trained": b"1\n"},
    )


@pytest.mark.parametrize(
    "is_cancelled", [False, True], ids=["of a job that went well", "of one that is cancelled"]
)
def test_results_are_lost_only_after_the_store_was_tried_again_for_a_while(
    session: Session, context: Context, is_cancelled: bool
) -> None:
    script = "echo 1 > $WORKSPACES_RESULTS_DIR/trained; echo ready" + ("; sleep 60" if is_cancelled else "")
    job_id = submit(session, step(script))

    with (
        patch.object(context.store, "stage", side_effect=fails_until(Event(), None)) as stage,
        supervised(context, job_id, job_results_seconds=3) as run,
    ):
        run.wait_for_line("ready")
        if is_cancelled:
            run.ask(JobStatus.CANCELLING)
        job = run.end()

    assert stage.call_count > 1
    lost = job.status_details["results_not_stored"]["trained"]
    assert lost.startswith("The storage has no space left")
    if is_cancelled:
        assert job.status is JobStatus.CANCELLED
    else:
        message = f"the results of step 'main' could not be stored: {lost}"
        assert (job.status, job.error_details) == (JobStatus.ERROR, {"message": message})


def test_a_result_is_published_once_although_its_commit_was_lost(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has committed, and its answer never came: the write is repeated."""
    job_id = submit(session, step("echo 1 > $WORKSPACES_RESULTS_DIR/one"))
    connected, publish, lost = leased_row.session_scope, context.store.publish, list[bool]()

    def published(upload: ReceivedUpload) -> Any:
        lost.append(False)
        return publish(upload)

    @contextmanager
    def scope(sessions: Sessions) -> Iterator[Session]:
        with connected(sessions) as one:
            yield one
        if lost == [False]:
            lost[0] = True
            raise OperationalError("COMMIT", {}, Exception("the answer was lost"))

    monkeypatch.setattr(leased_row, "session_scope", scope)
    with patch.object(context.store, "publish", published), supervised(context, job_id) as run:
        job = run.end()

    assert (job.status, job.error_details, lost) == (JobStatus.COMPLETED, None, [True])
    assert stored(run) == {"results/one": b"1\n"}


def test_many_results_are_not_stored_to_the_end_by_a_job_that_must_end(
    session: Session, context: Context
) -> None:
    job_id = submit(session, step("cd $WORKSPACES_RESULTS_DIR; mkdir all; cd all; seq 20000 | xargs touch"))

    with supervised(context, job_id, job_results_seconds=0.1) as run:
        blobs = run.context.settings.data_dir / "blobs"
        wait_until(lambda: any(blobs.rglob("results/all/*")), "it is being stored")
        run.ask(JobStatus.CANCELLING)
        job = run.end()

    assert (job.status, 0 < len(stored(run)) < 20000) == (JobStatus.CANCELLED, True)
    assert [one["name"] for one in job.results] == ["all"], "what there is of it can be downloaded"
    assert "the time was over" in job.status_details["results_not_stored"]["all others"]


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
def test_a_job_that_is_to_end_does_not_store_a_huge_result_to_its_end(
    session: Session, context: Context, limit_s: float, status: JobStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.jobs.result_files._MOST_HOLES", 2**40)
    job_id = submit(session, step("truncate -s 1T $WORKSPACES_RESULTS_DIR/huge"))

    with supervised(context, job_id, job_time_limit_seconds=limit_s, job_results_seconds=0.2) as run:
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
