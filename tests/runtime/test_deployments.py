"""What the runtime does with a version of a deployment, and that doing it twice does no harm."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.lifecycle import DeploymentStatus, WorkspaceState
from app.models import Deployment
from app.runtime import unfinished
from app.runtime.deployments import CONFIRMED, TAKEN_UP, advance
from tests.factories import make_deployment, make_workspace


def status_of(session: Session, deployment_id: UUID) -> DeploymentStatus | None:
    session.rollback()
    return session.scalar(select(Deployment.status).where(Deployment.id == deployment_id))


@pytest.mark.parametrize("state", WorkspaceState)
@pytest.mark.parametrize("before", DeploymentStatus)
def test_a_ring_confirms_stops_everywhere_and_takes_up_work_only_in_an_active_workspace(
    session: Session, context: Context, before: DeploymentStatus, state: WorkspaceState
) -> None:
    deployment = make_deployment(session, make_workspace(session, state=state), status=before)
    session.commit()
    taken_up = TAKEN_UP if state is WorkspaceState.ACTIVE else {}

    advance(context, deployment.id)
    advance(context, deployment.id)

    assert status_of(session, deployment.id) is {**CONFIRMED, **taken_up}.get(before, before)


def test_a_confirmed_stop_is_remembered_in_the_history(session: Session, context: Context) -> None:
    home = make_workspace(session, state=WorkspaceState.DELETING)
    deployment = make_deployment(session, home, status=DeploymentStatus.DELETING)
    session.commit()

    told = advance(context, deployment.id)

    session.refresh(deployment)
    assert told == "version 1 DELETING → DELETED, nothing of it runs"
    assert [entry["status"] for entry in deployment.status_history] == ["DELETED"]


def test_a_ring_for_a_deployment_that_is_gone_is_harmless(context: Context) -> None:
    assert advance(context, uuid7()) == "gone, nothing to do"


@pytest.mark.parametrize("state", WorkspaceState)
@pytest.mark.parametrize("status", DeploymentStatus)
def test_the_sweep_is_told_of_exactly_the_deployments_for_which_a_ring_does_something(
    session: Session, context: Context, state: WorkspaceState, status: DeploymentStatus
) -> None:
    deployment = make_deployment(session, make_workspace(session, state=state), status=status)
    deployment.updated_at = clock.now() - timedelta(hours=1)
    session.commit()

    messages = unfinished(session, older_than=clock.now() - timedelta(minutes=1))
    advance(context, deployment.id)

    assert bool(messages) == (status_of(session, deployment.id) is not status)
