"""Every move of a job, and stopping it whatever became of its workspace."""

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.errors import WrongState
from app.lifecycle import JOB_MOVES, JOB_TERMINAL, JobStatus, WorkspaceState
from app.models import Job
from app.services import jobs
from tests.factories import make_job, make_workspace
from tests.support.actors import trusted

ANN = trusted("ann")


@pytest.mark.parametrize("before", JobStatus)
@pytest.mark.parametrize("after", JobStatus)
def test_a_job_makes_exactly_the_published_moves(
    session: Session, before: JobStatus, after: JobStatus
) -> None:
    home = make_workspace(session)
    job, neighbour = make_job(session, home, "moved", before), make_job(session, home, "other", before)

    if after in JOB_MOVES[before]:
        jobs.move(session, job, after)
    else:
        with pytest.raises(WrongState, match=f"from '{before}' to '{after}'"):
            jobs.move(session, job, after)

    session.refresh(job)
    session.refresh(neighbour)
    assert job.status is (after if after in JOB_MOVES[before] else before)
    assert neighbour.status is before


@pytest.mark.parametrize("moves", [jobs.CANCEL, jobs.PAUSE, jobs.RESUME])
def test_a_request_asks_only_for_published_moves(moves: jobs.Moves) -> None:
    assert all(after in JOB_MOVES[before] for before, after in moves.items())


def test_every_job_that_has_not_ended_can_be_cancelled() -> None:
    assert jobs.CANCEL.keys() == set(JobStatus) - JOB_TERMINAL - {JobStatus.CANCELLING}


@pytest.mark.parametrize("before", JobStatus)
@pytest.mark.parametrize("moves", [jobs.CANCEL, jobs.PAUSE, jobs.RESUME])
def test_a_request_moves_the_jobs_it_names_and_leaves_all_others_alone(
    session: Session, before: JobStatus, moves: jobs.Moves
) -> None:
    job = make_job(session, make_workspace(session), "train", before, host="somewhere")
    touched_at = job.updated_at

    jobs.request_move(session, ANN, "ml-team", "train", moves)
    session.commit()

    session.refresh(job)
    assert job.status is moves.get(before, before)
    assert (job.updated_by, job.updated_at > touched_at) == (
        ("ann", True) if before in moves else ("", False)
    )


def test_a_job_that_moved_since_it_was_read_is_not_moved_again(session: Session) -> None:
    job = make_job(session, make_workspace(session), "train", JobStatus.ACTIVE)
    other = update(Job).values(status=JobStatus.COMPLETED)
    session.execute(other, execution_options={"synchronize_session": False})

    with pytest.raises(WrongState):
        jobs.move(session, job, JobStatus.CANCELLING)

    session.refresh(job)
    assert job.status is JobStatus.COMPLETED


@pytest.mark.parametrize("before", JobStatus)
def test_a_job_of_a_workspace_that_is_being_deleted_is_moved_towards_its_end(
    session: Session, before: JobStatus
) -> None:
    home = make_workspace(session, state=WorkspaceState.DELETING)
    runs = make_job(session, home, "runs", before, host="somewhere")
    waits = make_job(session, home, "waits", before)

    for job in (runs, waits, runs, waits):
        jobs.request_stop(session, job.id)

    session.refresh(runs)
    session.refresh(waits)
    assert runs.status is (before if before in JOB_TERMINAL else JobStatus.CANCELLING)
    # Nobody has it, so nobody has to confirm, and nobody is waited for.
    ended = {JobStatus.CANCELLING: JobStatus.CANCELLING}.get(before, JobStatus.CANCELLED)
    assert waits.status is (before if before in JOB_TERMINAL else ended)
    assert (jobs.has_ended(runs), jobs.has_ended(waits)) == (False, waits.status in JOB_TERMINAL)


def test_stopping_a_job_that_is_gone_says_so(session: Session) -> None:
    job = make_job(session, make_workspace(session))
    session.delete(job)
    session.flush()  # the row must be gone before it is asked for

    assert jobs.request_stop(session, job.id) is None


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
