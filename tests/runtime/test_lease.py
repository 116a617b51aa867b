"""Leases of jobs and deployments: a runner that lost one can write nothing any more."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import clock
from app.lease import LeaseLost, write
from app.lifecycle import DeploymentStatus
from app.models import Deployment, Job
from app.runtime.deployments import supervisor as deployments
from app.runtime.deployments.contract import KUBERNETES
from app.runtime.jobs import supervisor as jobs
from app.runtime.sweep import unsupervised_deployments
from tests.factories import make_deployment, make_job, make_workspace

MODELS = [Job, Deployment]
NOW = clock.now()
LATER = NOW + timedelta(minutes=5)


def leased(session: Session, model: type[Any], **values: Any) -> Any:
    """A row whose lease a runner holds with the fencing token 7."""
    make = make_job if model is Job else make_deployment
    row = make(session, make_workspace(session))
    lease = {
        "host": "here",
        "lease_owner": "1@boot:1",
        "fence": 7,
        "lease_until": NOW,
        "updated_by": "before",
    }
    for name, value in {**lease, **values}.items():
        setattr(row, name, value)
    session.commit()
    return row


@pytest.mark.parametrize("model", MODELS)
def test_the_owner_of_the_lease_writes_and_renews(session: Session, model: type[Any]) -> None:
    row = leased(session, model)

    write(session, model, row.id, 7, updated_by="after")
    write(session, model, row.id, 7, lease_until=LATER)

    session.refresh(row)
    assert (row.updated_by, row.lease_until, row.fence) == ("after", LATER, 7)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("fence", "values"),
    [(6, {}), (8, {}), (7, {"lease_owner": None})],
    ids=["an outdated fence", "a fence that nobody has got", "released"],
)
def test_a_runner_without_the_lease_changes_nothing(
    session: Session, model: type[Any], fence: int, values: dict[str, Any]
) -> None:
    row = leased(session, model, **values)

    with pytest.raises(LeaseLost):
        write(session, model, row.id, fence, updated_by="after")
    with pytest.raises(LeaseLost):
        write(session, model, row.id, fence, lease_until=LATER)

    session.refresh(row)
    assert (row.updated_by, row.lease_until, row.fence) == ("before", NOW, 7)


@pytest.mark.parametrize("model", MODELS)
def test_a_row_that_is_gone_has_no_lease(session: Session, model: type[Any]) -> None:
    row = leased(session, model)
    session.delete(row)
    session.commit()

    with pytest.raises(LeaseLost):
        write(session, model, row.id, 7, updated_by="after")


@pytest.mark.parametrize(("model", "module"), [(Job, jobs), (Deployment, deployments)])
def test_a_runner_that_was_marked_lost_cannot_write_when_it_wakes_up(
    session: Session, model: type[Any], module: Any
) -> None:
    row = leased(session, model)

    assert module.mark_lost(session) == 1
    session.commit()

    with pytest.raises(LeaseLost):
        write(session, model, row.id, 7, updated_by="after")
    session.refresh(row)
    assert (row.fence, row.host, row.lease_owner, row.updated_by) == (8, "here", None, "before")


def test_a_deployment_in_a_cluster_serves_on_when_its_supervisor_is_lost(session: Session) -> None:
    address = "http://ws-1.default.svc:8000"
    row = leased(session, Deployment, status=DeploymentStatus.READY, address=address, host=KUBERNETES)

    assert deployments.mark_lost(session) == 1
    session.commit()

    session.refresh(row)
    assert (row.status, row.address, row.host, row.fence) == (DeploymentStatus.READY, address, KUBERNETES, 8)
    assert row.lease_owner is None
    [message] = unsupervised_deployments(session, requeue_s=0)
    assert message.facts["deployment_id"] == str(row.id)


@pytest.mark.parametrize("status", [DeploymentStatus.DELETING, DeploymentStatus.DELETED])
def test_a_lost_deployment_that_is_to_be_stopped_is_not_called_lost(
    session: Session, status: DeploymentStatus
) -> None:
    row = leased(session, Deployment, status=status)

    assert deployments.mark_lost(session) == 1
    session.commit()

    session.refresh(row)
    assert (row.status, row.host, row.fence) == (status, "here", 8)
