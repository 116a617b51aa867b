"""Health, status and metrics."""

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy.orm import Session

from app import create_app
from app.cleanup import control
from app.context import Context
from app.maintenance import sweep
from app.version import VERSION
from tests.support.aging import age_everything
from tests.support.application import answering_from
from tests.support.health import all_alive


@pytest.fixture
def without_database(context: Context) -> FlaskClient:
    nobody = "postgresql+psycopg://app@127.0.0.1:1/none"
    return create_app(
        Context.open(context.settings.model_copy(update={"database_url": nobody}))
    ).test_client()


def test_a_server_without_its_database_lives_but_is_not_ready(without_database: FlaskClient) -> None:
    assert without_database.get("/health/live").json == {"status": "live"}
    ready = without_database.get("/health/ready")
    assert (ready.status_code, ready.json) == (503, {"detail": {"status": "not_ready"}})
    assert without_database.get("/status").json["status"] == "unhealthy"
    assert without_database.get("/apis/entities/v2/workspaces").status_code == 503


def test_a_server_says_its_version(without_database: FlaskClient) -> None:
    assert without_database.get("/cluster-info").json == {"platform_version": VERSION, "revision": VERSION}


def test_a_server_with_its_database_is_ready(client: FlaskClient) -> None:
    assert client.get("/health/ready").json == {"status": "ready"}


def test_the_status_is_healthy_only_while_somebody_sweeps(
    client: FlaskClient, context: Context, session: Session
) -> None:
    assert client.get("/status").json["status"] == "degraded"

    sweep.sweep(context)
    all_alive(session)
    assert client.get("/status").json["status"] == "healthy"

    age_everything(session, 300)
    assert client.get("/status").json["controllers"]["status"]["workspace_cleanup_sweep"] is False


def test_a_pause_is_no_secret(client: FlaskClient, context: Context, session) -> None:
    sweep.sweep(context)
    control.set_paused(session, paused=True, actor="root")
    session.commit()

    assert client.get("/status").json["status"] == "degraded"
    assert 'workspaces_destruction_paused{by="root"} 1.0' in client.get("/metrics").text


def test_with_authentication_metrics_want_the_token_from_this_host_too(context: Context, settings) -> None:
    """Behind a proxy on the same host everybody comes from there."""
    login = {"auth_enabled": True, "allow_unsigned_jwt": True, "metrics_token": SecretStr("s3cret")}
    object.__setattr__(context, "settings", settings.model_copy(update=login))
    client = answering_from(context).test_client()

    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["//metrics", "///metrics", "//health/live", "//apis/entities/v2/workspaces"]
)
def test_a_doubled_slash_leads_nowhere(client: FlaskClient, path: str) -> None:
    """A proxy that forbids a path would let it pass."""
    answer = client.get("/", environ_overrides={"PATH_INFO": path})

    assert (answer.status_code, answer.json) == (404, {"detail": "Not Found"})


def test_metrics_are_for_this_host_or_the_bearer_of_the_token(context: Context, settings) -> None:
    object.__setattr__(
        context, "settings", settings.model_copy(update={"metrics_token": SecretStr("s3cret")})
    )
    client = create_app(context).test_client()
    elsewhere = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}

    assert client.get("/metrics", **elsewhere).status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}, **elsewhere).status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer s3cret"}, **elsewhere).status_code == 200
    assert 'workspaces{state="ACTIVE"} 2.0' in client.get("/metrics").text


def test_discovery_says_that_no_login_is_needed(client: FlaskClient) -> None:
    assert client.get("/apis/auth/discovery").json == {"auth_enabled": False, "oidc": None}
