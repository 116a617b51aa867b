"""Every move of a job, and stopping it in a workspace of any state."""

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.errors import WrongState
from app.lifecycle import JOB_MOVES, JOB_TERMINAL, JobMove, JobStatus, WorkspaceState
from app.models import Job
from app.services import jobs
from tests.factories import make_job, make_workspace
from tests.support.actors import trusted

ANN = trusted("ann")


@pytest.mark.parametrize("before", JobStatus)
@pytest.mark.parametrize("move", JobMove)
def test_a_job_makes_exactly_the_moves_that_lead_from_its_status(
    session: Session, before: JobStatus, move: JobMove
) -> None:
    workspace = make_workspace(session)
    job, neighbour = (
        make_job(session, workspace, "moved", before),
        make_job(session, workspace, "other", before),
    )
    leads_from_it = before in move.value.before

    if leads_from_it:
        jobs.move(session, job, move)
    else:
        with pytest.raises(WrongState, match=f"from '{before}' to '{move.value.after}'"):
            jobs.move(session, job, move)

    session.refresh(job)
    session.refresh(neighbour)
    assert job.status is (move.value.after if leads_from_it else before)
    assert neighbour.status is before


def test_only_a_rerun_is_not_among_the_published_moves() -> None:
    moves = [(before, move) for move in JobMove for before in move.value.before]
    unpublished = {move for before, move in moves if move.value.after not in JOB_MOVES[before]}

    assert unpublished == {JobMove.RERUN}
    assert set(JobMove.RERUN.value.before) == JOB_TERMINAL


def test_every_job_that_has_not_ended_can_be_cancelled() -> None:
    assert set(JobMove.CANCEL.value.before) == set(JobStatus) - JOB_TERMINAL - {JobStatus.CANCELLING}


@pytest.mark.parametrize("before", JobStatus)
@pytest.mark.parametrize("asked", [JobMove.CANCEL, JobMove.PAUSE, JobMove.RESUME])
def test_a_request_moves_the_jobs_it_names_and_leaves_all_others_alone(
    session: Session, before: JobStatus, asked: JobMove
) -> None:
    job = make_job(session, make_workspace(session), "train", before, host="somewhere")
    touched_at = job.updated_at

    jobs.request_move(session, ANN, "ml-team", "train", asked)
    session.commit()

    session.refresh(job)
    is_moved = before in asked.value.before
    assert job.status is (asked.value.after if is_moved else before)
    assert (job.updated_by, job.updated_at > touched_at) == (("ann", True) if is_moved else ("", False))


def test_a_job_that_moved_since_it_was_read_is_not_moved_again(session: Session) -> None:
    job = make_job(session, make_workspace(session), "train", JobStatus.ACTIVE)
    other = update(Job).values(status=JobStatus.COMPLETED)
    session.execute(other, execution_options={"synchronize_session": False})

    with pytest.raises(WrongState):
        jobs.move(session, job, JobMove.CANCEL)

    session.refresh(job)
    assert job.status is JobStatus.COMPLETED


@pytest.mark.parametrize("before", JobStatus)
def test_a_job_of_a_workspace_that_is_being_deleted_is_moved_towards_its_end(
    session: Session, before: JobStatus
) -> None:
    workspace = make_workspace(session, state=WorkspaceState.DELETING)
    runs = make_job(session, workspace, "runs", before, host="somewhere")
    waits = make_job(session, workspace, "waits", before)

    for job in (runs, waits, runs, waits):
        jobs.request_stop(session, job.id)

    session.refresh(runs)
    session.refresh(waits)
    assert runs.status is (before if before in JOB_TERMINAL else JobStatus.CANCELLING)
    # No host has it, so no runtime worker has to confirm its end.
    assert waits.status is (before if before in JOB_TERMINAL else JobStatus.CANCELLED)
    assert (jobs.has_ended(runs), jobs.has_ended(waits)) == (False, True)


def test_stopping_a_job_that_does_not_exist_returns_none(session: Session) -> None:
    job = make_job(session, make_workspace(session))
    session.delete(job)
    session.flush()  # the row must be gone before it is asked for

    assert jobs.request_stop(session, job.id) == (None, False)


@pytest.mark.parametrize("before", sorted(set(JobStatus) - JOB_TERMINAL))
def test_a_job_in_any_state_can_fail_with_the_step_that_ran(session: Session, before: JobStatus) -> None:
    steps = [
        {"name": name, "status": status, "tasks": []} for name, status in (("a", "completed"), ("b", before))
    ]
    job = make_job(session, make_workspace(session), "train", before, steps=steps)

    jobs.fail(session, job, "oops", exit_code=3)
    session.commit()

    session.refresh(job)
    assert (job.status, job.error_details) == (JobStatus.ERROR, {"message": "oops", "exit_code": 3})
    assert [step["status"] for step in job.steps] == ["completed", "error"]


@pytest.mark.parametrize("before", JobStatus)
def test_a_job_runs_again_from_exactly_the_statuses_that_end_it(session: Session, before: JobStatus) -> None:
    workspace = make_workspace(session)
    job, neighbour = (
        make_job(session, workspace, "train", before),
        make_job(session, workspace, "other", before),
    )
    attempt_id = job.attempt_id

    if before in JobMove.RERUN.value.before:
        jobs.rerun(session, ANN, "ml-team", "train")
    else:
        with pytest.raises(WrongState, match="Cannot rerun job 'train'"):
            jobs.rerun(session, ANN, "ml-team", "train")

    session.refresh(job)
    session.refresh(neighbour)
    is_new = before in JobMove.RERUN.value.before
    assert (job.status, job.attempt_id != attempt_id) == (
        (JobStatus.CREATED, True) if is_new else (before, False)
    )
    assert neighbour.status is before
