"""Every move of a deployment, its history, and the lock on its configuration."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope
from app.errors import Conflict, WrongState
from app.lifecycle import DEPLOYMENT_MOVES, DeploymentStatus, WorkspaceState
from app.models import Deployment, DeploymentConfig
from app.services import deployment_configs, deployments
from tests.factories import make_config, make_deployment, make_workspace
from tests.support.actors import trusted
from tests.support.deadlines import DEADLINE_S

ANN = trusted("ann")


@pytest.mark.parametrize("before", DeploymentStatus)
@pytest.mark.parametrize("after", DeploymentStatus)
def test_a_deployment_makes_exactly_the_published_moves(
    session: Session, before: DeploymentStatus, after: DeploymentStatus
) -> None:
    workspace = make_workspace(session)
    moved, other = (
        make_deployment(session, workspace, "moved", before),
        make_deployment(session, workspace, "other", before),
    )
    is_legal = after in DEPLOYMENT_MOVES[before] or after is before

    if is_legal:
        deployments.move(session, moved, after, "why")
    else:
        with pytest.raises(WrongState):
            deployments.move(session, moved, after, "why")

    session.refresh(moved)
    session.refresh(other)
    assert (moved.status, moved.status_message) == ((after, "why") if is_legal else (before, ""))
    assert other.status is before


def test_the_history_merges_neighbours_and_keeps_the_newest_hundred(session: Session) -> None:
    deployment = make_deployment(session, make_workspace(session))

    for round_ in range(60):
        deployments.move(session, deployment, DeploymentStatus.READY, "up")
        deployments.move(session, deployment, DeploymentStatus.READY, f"up {round_}")
        deployments.move(session, deployment, DeploymentStatus.LOST, f"down {round_}")

    history = [(entry["status"], entry["status_message"]) for entry in deployment.status_history]
    assert len(history) == deployments.HISTORY_LIMIT
    assert history[-2:] == [("READY", "up 59"), ("LOST", "down 59")]


@pytest.mark.parametrize(
    ("host", "after"), [("somewhere", DeploymentStatus.DELETING), (None, DeploymentStatus.DELETED)]
)
@pytest.mark.parametrize("before", sorted(set(DeploymentStatus) - {DeploymentStatus.DELETED}))
def test_a_deployment_of_a_workspace_that_is_being_deleted_waits_for_its_host_if_it_has_one(
    session: Session, before: DeploymentStatus, host: str | None, after: DeploymentStatus
) -> None:
    workspace = make_workspace(session, state=WorkspaceState.DELETING)
    deployment = make_deployment(session, workspace, status=before, host=host)

    first = deployments.request_stop(session, deployment.id)[0].status
    second = deployments.request_stop(session, deployment.id)[0].status

    session.refresh(deployment)
    assert first is second is deployment.status is after


def test_what_has_been_deleted_for_long_is_removed_and_nothing_else(session: Session) -> None:
    workspace = make_workspace(session)
    ages = {"old": 31, "fresh": 10, "on-host": 31, "serving": 31}
    rows = {name: make_deployment(session, workspace, name, DeploymentStatus.DELETED) for name in ages}
    doomed = make_deployment(
        session, make_workspace(session, "doomed", state=WorkspaceState.DELETING), "doomed"
    )
    rows["on-host"].host = "here"  # which has not confirmed yet that nothing of it is left
    rows["serving"].status, doomed.status = DeploymentStatus.READY, DeploymentStatus.DELETED
    for name, age in ages.items():
        rows[name].updated_at = clock.now() - timedelta(seconds=age)
    doomed.updated_at = clock.now() - timedelta(seconds=31)
    session.commit()

    assert deployments.remove_gone(session, after_s=30) == 1

    left = session.scalars(select(Deployment.name).order_by(Deployment.name)).all()
    assert left == ["doomed", "fresh", "on-host", "serving"]


def test_stopping_a_deployment_that_does_not_exist_returns_none(session: Session) -> None:
    deployment = make_deployment(session, make_workspace(session))
    session.delete(deployment)
    session.flush()  # the row must be gone before it is asked for

    assert deployments.request_stop(session, deployment.id) == (None, False)


def test_a_config_cannot_be_deleted_under_a_deployment_that_is_being_created(
    session: Session, context: Context
) -> None:
    make_config(session, make_workspace(session))
    session.commit()

    def delete() -> None:
        with session_scope(context.sessions) as other:
            deployment_configs.delete_config(other, ANN, "ml-team", "small")

    with ThreadPoolExecutor(1) as threads:
        deployments.create_deployment(
            session, ANN, "ml-team", "chat", config="small", config_version=None, project=None
        )
        deletion = threads.submit(delete)
        wait_until_blocked(context)
        session.commit()
        with pytest.raises(Conflict, match=r"because 1 ModelDeployment\(s\) still reference it"):
            deletion.result()

    assert session.scalar(select(func.count()).select_from(DeploymentConfig)) == 1


def test_versions_created_at_the_same_time_are_numbered_one_after_another(
    session: Session, context: Context
) -> None:
    workspace = make_workspace(session)
    make_config(session, workspace)
    make_deployment(session, workspace)
    session.commit()

    def create(_: int) -> int:
        with session_scope(context.sessions) as other:
            return deployments.create_version(
                other, ANN, "ml-team", "chat", config="small", config_version=None
            ).entity_version

    with ThreadPoolExecutor(4) as threads:
        numbers = sorted(threads.map(create, range(8)))

    assert numbers == list(range(2, 10))
    assert session.scalar(select(func.max(Deployment.entity_version))) == 9


def wait_until_blocked(context: Context) -> None:
    """Return once somebody waits for a lock; fail if nobody does in time."""
    deadline = monotonic() + DEADLINE_S
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()"
    )
    with context.sessions() as session:
        while not session.scalar(waiting):
            assert monotonic() < deadline, "the deletion did not wait for the deployment"
