"""Whether a deployment serves, as clients ask a gateway."""

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.api.inference_gateway.providers import HEALTHY_WITHIN_S
from app.clock import database_now
from app.lifecycle import DeploymentStatus, WorkspaceState
from app.models import Deployment, Workspace
from tests.factories import make_deployment, make_workspace
from tests.support.aging import time_of

READY = DeploymentStatus.READY


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    session.commit()
    return workspace


def serve(
    session: Session, workspace: Workspace, version: int = 1, *, age_s: float = 0.0, **values: Any
) -> None:
    """A version whose last passed health check is so old."""
    values = {
        "status": READY,
        "address": f"http://server-{version}:8000",
        "healthy_at": time_of(session) - timedelta(seconds=age_s),
        **values,
    }
    make_deployment(session, workspace, "chat", entity_version=version, **values)
    session.commit()


def ask(client: FlaskClient, name: str = "chat") -> tuple[int, Any]:
    answer = client.get(f"/apis/inference-gateway/v2/workspaces/ml-team/provider/{name}/ready")
    return answer.status_code, answer.json


def test_a_deployment_whose_health_was_seen_just_now_is_ready(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    # In the future, so that no machine is too slow.
    serve(session, workspace, age_s=-3600)
    serve(session, make_workspace(session, "other"), age_s=-3600, address="http://theirs:8000")

    expected = {"ready": True, "provider": "ml-team/chat", "host_url": "http://server-1:8000"}
    assert ask(client) == (200, expected)


def test_one_whose_last_passed_check_is_too_old_is_not(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    serve(session, workspace, age_s=HEALTHY_WITHIN_S)

    status, body = ask(client)

    assert status == 404
    assert body["detail"].startswith("Provider 'ml-team/chat' is not ready")
    session.execute(update(Deployment).values(healthy_at=database_now() + timedelta(hours=1)))
    session.commit()
    assert ask(client)[0] == 200


@pytest.mark.parametrize("status", sorted(set(DeploymentStatus) - {READY}))
def test_nor_is_one_that_is_not_ready_by_now(
    client: FlaskClient, session: Session, workspace: Workspace, status: DeploymentStatus
) -> None:
    serve(session, workspace, status=status, age_s=-3600)

    assert ask(client)[0] == 404


def test_nor_one_whose_health_nobody_has_checked(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    """As one that a client reports as READY."""
    serve(session, workspace, healthy_at=None)

    assert ask(client)[0] == 404
    assert ask(client, "missing")[0] == 404


def test_an_older_version_counts_until_the_new_one_serves(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    serve(session, workspace, 1, age_s=-3600)
    serve(session, workspace, 2, status=DeploymentStatus.PENDING, healthy_at=None)
    assert ask(client)[1]["host_url"] == "http://server-1:8000"

    session.execute(
        update(Deployment)
        .where(Deployment.entity_version == 2)
        .values(status=READY, healthy_at=database_now() + timedelta(hours=1))
    )
    session.commit()

    assert ask(client)[1]["host_url"] == "http://server-2:8000"


def test_in_a_workspace_that_is_being_deleted_nothing_is_ready(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    serve(session, workspace, age_s=-3600)
    workspace.state = WorkspaceState.DELETING
    session.commit()

    assert ask(client) == (404, {"detail": "Workspace 'ml-team' not found"})
