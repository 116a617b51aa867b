"""The list of hosts says what is on each, and whether its runtime worker is alive; a purge says why it is refused."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeploymentStatus, JobStatus
from app.models import Heartbeat
from tests import factories
from tests.support.aging import age
from tests.support.statements import counted

HOSTS = "/apis/jobs/v2/hosts"


@pytest.fixture
def hosts(client: FlaskClient, session: Session) -> dict[str, dict[str, Any]]:
    workspace = factories.make_workspace(session)
    note_alive(session, Process.RUNTIME, ["busy"], job_slots=3)
    for silent in ("silent", "forgotten", "pinned"):
        note_alive(session, Process.RUNTIME, [silent])
    note_alive(session, Process.CLEANUP, ["cleaner"])
    for name, status in (("runs", JobStatus.ACTIVE), ("paused", JobStatus.PAUSED)):
        factories.make_job(session, workspace, name, status, host="busy")
    factories.make_deployment(session, workspace, "chat", DeploymentStatus.READY, host="pinned")
    factories.make_job(session, workspace, "lost", JobStatus.ERROR, host="never-seen")
    factories.make_job(session, workspace, "waits")
    session.commit()
    for host, seconds in (("silent", 300), ("forgotten", 2 * 3600), ("pinned", 2 * 3600)):
        age(session, session.get_one(Heartbeat, (Process.RUNTIME, host)), seconds)
    answer = client.get(HOSTS)
    assert answer.status_code == 200
    return {one.pop("host"): one for one in answer.json["data"]}


def test_each_host_that_is_in_use_or_was_alive_within_an_hour_is_there(
    hosts: dict[str, dict[str, Any]], session: Session
) -> None:
    seen = {host: one.pop("last_seen_at") for host, one in hosts.items()}

    nothing = {"is_alive": False, "job_slots": 0, "jobs_running": 0, "jobs": 0, "deployments": 0}
    assert hosts == {
        "busy": {**nothing, "is_alive": True, "job_slots": 3, "jobs_running": 1, "jobs": 2},
        "silent": nothing,
        "pinned": {**nothing, "deployments": 1},
        "never-seen": {**nothing, "jobs": 1},
    }
    at = session.scalars(select(Heartbeat.heartbeat_at).where(Heartbeat.host == "pinned")).one()
    assert seen["pinned"][:19] == at.isoformat()[:19]
    assert seen["never-seen"] is None


def test_the_hosts_are_found_by_one_statement(
    client: FlaskClient, session: Session, context: Context
) -> None:
    with counted(context.sessions.kw["bind"]) as none:
        assert client.get(HOSTS).json["data"] == []
    note_alive(session, Process.RUNTIME, [f"gpu-{number}" for number in (3, 1, 2)])
    session.commit()

    with counted(context.sessions.kw["bind"]) as some:
        found = [one["host"] for one in client.get(HOSTS).json["data"]]

    assert found == ["gpu-1", "gpu-2", "gpu-3"]
    about_hosts = [one.text for one in some if "heartbeats" in one.text]
    assert len(about_hosts) == 1
    assert [one.text for one in some] == [one.text for one in none]
    assert len(some) == 1


@pytest.mark.parametrize(
    ("host", "status", "complaint"),
    [("mistyped", 404, "no job or deployment is on host"), ("kubernetes", 409, "is the cluster")],
)
def test_what_cannot_be_purged_is_said(client: FlaskClient, host: str, status: int, complaint: str) -> None:
    answer = client.post(f"{HOSTS}/{host}/purge")

    assert answer.status_code == status
    assert complaint in answer.json["detail"]
