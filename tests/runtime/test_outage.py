"""What the sweep makes of supervisors that were silent while the database was away."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import DeploymentStatus, JobStatus
from app.maintenance import sweep
from app.models import Deployment, Job, MaintenanceStep
from tests.factories import make_deployment, make_job, make_workspace
from tests.support.aging import age_everything, note_sweeps, time_of

LEASE = {"host": "here", "lease_owner": "1@elsewhere:1", "fence": 7}


@pytest.fixture
def running(session: Session) -> tuple[Job, Deployment]:
    """A job and a deployment whose supervisors renewed their leases just before the database went away."""
    workspace = make_workspace(session)
    job = make_job(session, workspace, status=JobStatus.ACTIVE)
    deployment = make_deployment(session, workspace, status=DeploymentStatus.READY)
    for row in (job, deployment):
        for name, value in LEASE.items():
            setattr(row, name, value)
        row.lease_until = time_of(session) + timedelta(seconds=30)
    session.commit()
    return job, deployment


def statuses(session: Session, running: tuple[Job, Deployment]) -> tuple[str, str]:
    for row in running:
        session.refresh(row)
    return running[0].status, running[1].status


def test_the_first_sweep_after_an_outage_marks_nothing_lost(
    session: Session, context: Context, running: tuple[Job, Deployment]
) -> None:
    sweep.sweep(context)
    note_sweeps(session, 3600)
    age_everything(session, 120)

    swept = sweep.sweep(context)

    assert (swept.ended, swept.failed) == (0, [])
    assert statuses(session, running) == ("active", "READY")
    since = session.scalars(select(MaintenanceStep.unbroken_since)).all()
    assert min(since) > time_of(session) - timedelta(seconds=60), "the count begins anew"


def test_a_supervisor_that_is_silent_for_a_lease_of_sweeps_is_lost(
    session: Session, context: Context, running: tuple[Job, Deployment]
) -> None:
    lease_s = context.settings.runtime_lease_seconds
    sweep.sweep(context)
    age_everything(session, 120)
    note_sweeps(session, lease_s / 2)
    sweep.sweep(context)
    assert statuses(session, running) == ("active", "READY"), "half a lease is not enough"

    note_sweeps(session, lease_s + 1)
    sweep.sweep(context)

    assert statuses(session, running) == ("error", "LOST")


def test_a_schema_that_has_just_been_upgraded_counts_from_its_first_sweep(
    session: Session, context: Context, running: tuple[Job, Deployment]
) -> None:
    sweep.sweep(context)
    age_everything(session, 120)
    session.execute(update(MaintenanceStep).values(last_success_at=time_of(session), unbroken_since=None))
    session.commit()

    sweep.sweep(context)

    assert statuses(session, running) == ("active", "READY")
    assert None not in session.scalars(select(MaintenanceStep.unbroken_since)).all()
