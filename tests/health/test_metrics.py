"""What `/metrics` says of deletions, maintenance, jobs, deployments and queues."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.orm import Session

from app.cleanup import control
from app.clock import seconds_from_now
from app.context import Context
from app.dispatch import Message
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeletionState, DeploymentStatus, FailureClass, JobStatus
from app.models import Deletion, DeletionFailure, DeletionHold, Heartbeat, OrphanScan
from tests import factories
from tests.support.aging import age, time_of
from tests.support.publisher import RecordingPublisher

HOUR_S = 3600.0


def samples(client: FlaskClient, name: str) -> dict[str, float]:
    """The samples of a metric by their labels, as they are written."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


@pytest.fixture
def deletion(session: Session) -> Callable[..., Deletion]:
    """Makes a deletion that has begun, and may go on now."""

    def make(**values: Any) -> Deletion:
        now = time_of(session)
        begun = {"started_at": now, "phase": "filesets", "purge_after": now, "next_run_at": now}
        one = Deletion(workspace_id=uuid4(), workspace_name="ml-team", **begun | values)
        session.add(one)
        session.commit()
        return one

    return make


def fail(session: Session, deletion: Deletion, error_class: FailureClass, cause: str, **values: Any) -> None:
    row = {"kind": "filesets", "resource_id": str(uuid4()), "name": "data", "message": cause, "cause": cause}
    now = time_of(session)
    session.add(
        DeletionFailure(
            deletion_id=deletion.id,
            error_class=error_class,
            first_seen_at=now,
            last_seen_at=now,
            **row | values,
        )
    )
    session.commit()


# --- what deletions are doing -------------------------------------------------------------------------------

NOT_BEGUN = {"started_at": None, "phase": None}
LEASED = {"lease_owner": "w", "lease_until": seconds_from_now(60)}
CONDITIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a worker has it": (LEASED, "filesets", "running"),
    "its turn is to come": ({}, "filesets", "waiting"),
    "not begun": (NOT_BEGUN, "none", "waiting"),
    "it polls": ({"polls": 3, "next_run_at": seconds_from_now(60)}, "filesets", "waiting"),
    "backs off": ({"attempts": 2, "next_run_at": seconds_from_now(60)}, "filesets", "backing_off"),
    "its worker was lost": (LEASED | {"lease_until": seconds_from_now(-9)}, "filesets", "waiting"),
    "the last step": ({"phase": None}, "finalize", "waiting"),
    "grace": (NOT_BEGUN | {"purge_after": seconds_from_now(60)}, "none", "grace"),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_a_deletion_is_shown_at_its_phase_and_in_its_condition(
    client: FlaskClient, deletion: Callable[..., Deletion], case: str
) -> None:
    values, phase, condition = CONDITIONS[case]
    deletion(**values)
    deletion(state=DeletionState.DONE, phase=None)
    deletion(state=DeletionState.FAILED)

    assert samples(client, "workspaces_deletions_active") == {f'condition="{condition}",phase="{phase}"': 1}


@pytest.mark.parametrize("case", ["paused", "held"])
def test_what_may_not_begin_is_paused_and_what_runs_runs_on(
    client: FlaskClient, session: Session, deletion: Callable[..., Deletion], case: str
) -> None:
    deletion(requested_by="ann")
    deletion(requested_by="ann", **LEASED)
    if case == "paused":
        control.set_paused(session, paused=True, actor="root")
    else:
        session.add(DeletionHold(requested_by="ann", held_at=time_of(session), reason="a burst"))
    session.commit()

    assert samples(client, "workspaces_deletions_active") == {
        'condition="paused",phase="filesets"': 1,
        'condition="running",phase="filesets"': 1,
    }
    assert samples(client, "workspaces_deletions_held") == {"": 2 if case == "held" else 0}


def test_a_deletion_whose_store_answers_nothing_is_hung_and_one_with_errors_is_not(
    client: FlaskClient, session: Session, deletion: Callable[..., Deletion]
) -> None:
    later = {"attempts": 1, "next_run_at": seconds_from_now(60)}
    fail(session, deletion(**later), FailureClass.TRANSIENT, "TimeoutError: no answer within 10 s")
    fail(session, deletion(**later), FailureClass.TRANSIENT, "ConnectionError: refused")
    fail(
        session,
        deletion(**later),
        FailureClass.TRANSIENT,
        "TimeoutError: of a phase that is over",
        kind="jobs",
    )

    assert samples(client, "workspaces_deletions_active") == {
        'condition="backing_off",phase="filesets"': 2,
        'condition="hung",phase="filesets"': 1,
    }


def test_an_old_failed_deletion_hides_no_backlog_and_grace_is_none(
    client: FlaskClient, session: Session, deletion: Callable[..., Deletion]
) -> None:
    deletion(**NOT_BEGUN, purge_after=seconds_from_now(HOUR_S), requested_at=seconds_from_now(-9 * HOUR_S))
    assert samples(client, "workspaces_deletion_oldest_timestamp_seconds") == {}
    now = time_of(session).timestamp()
    age(session, deletion(state=DeletionState.FAILED), 24 * HOUR_S)
    age(session, deletion(), HOUR_S)
    age(session, deletion(state=DeletionState.DONE), 99 * HOUR_S)

    found = samples(client, "workspaces_deletion_oldest_timestamp_seconds")

    assert found == {
        'state="DELETING"': pytest.approx(now - HOUR_S, abs=60),
        'state="FAILED"': pytest.approx(now - 24 * HOUR_S, abs=60),
    }
    assert samples(client, "workspaces_deletions") == {'state="DELETING"': 2, 'state="FAILED"': 1}


def test_progress_is_that_of_any_deletion_that_may_go_on(
    client: FlaskClient, session: Session, deletion: Callable[..., Deletion]
) -> None:
    name = "workspaces_deletion_last_progress_timestamp_seconds"
    assert samples(client, name) == {}
    now = time_of(session).timestamp()

    age(session, deletion(), 3 * HOUR_S)  # nothing of it has gone yet
    assert samples(client, name) == {"": pytest.approx(now - 3 * HOUR_S, abs=60)}

    age(session, deletion(last_progress_at=time_of(session)), 2 * HOUR_S)
    deletion(state=DeletionState.FAILED, last_progress_at=time_of(session))
    assert samples(client, name) == {"": pytest.approx(now - 2 * HOUR_S, abs=60)}


def test_failures_are_counted_by_kind_and_class_but_for_skipped_ones(
    client: FlaskClient, session: Session, deletion: Callable[..., Deletion]
) -> None:
    failed, done = deletion(state=DeletionState.FAILED), deletion(state=DeletionState.DONE)
    for cause in ("OSError: 503", "OSError: 503", "OSError: 500"):
        fail(session, failed, FailureClass.TRANSIENT, cause)
    fail(session, failed, FailureClass.PERMANENT, "PermissionError: denied")
    fail(session, failed, FailureClass.PERMANENT, "denied", skipped_by="root", skip_reason="kept")
    fail(session, deletion(), FailureClass.WAITING, "cancelling", kind="jobs")
    fail(session, done, FailureClass.PERMANENT, "denied", skipped_by="root", skip_reason="kept")

    assert samples(client, "workspaces_deletion_failures") == {
        'error_class="transient",kind="filesets"': 3,
        'error_class="permanent",kind="filesets"': 1,
        'error_class="waiting",kind="jobs"': 1,
    }


def test_workspaces_are_counted_by_state(
    client: FlaskClient, session: Session, context: Context, deletion: Callable[..., Deletion]
) -> None:
    factories.make_workspace(session)
    deletion(state=DeletionState.FAILED)

    assert samples(client, "workspaces") == {
        'state="ACTIVE"': 3,  # with those that are built in
        'state="DELETING"': 0,
        'state="FAILED"': 1,
    }


# --- maintenance --------------------------------------------------------------------------------------------


def test_who_has_paused_destruction_is_a_label(client: FlaskClient, session: Session) -> None:
    assert samples(client, "workspaces_destruction_paused") == {'by=""': 0}

    control.set_paused(session, paused=True, actor="root")
    session.commit()

    assert samples(client, "workspaces_destruction_paused") == {'by="root"': 1}


def test_what_an_orphan_scan_has_found_is_shown_until_the_next(client: FlaskClient, session: Session) -> None:
    when = "workspaces_cleanup_last_orphan_scan_timestamp_seconds"
    assert samples(client, when) == {"": 0}
    assert samples(client, "workspaces_orphans") == {}

    now = time_of(session)
    session.add(OrphanScan(id=1, finished_at=now, found={"bytes": 2}))  # the cluster could not be asked
    session.commit()

    assert samples(client, when) == {"": pytest.approx(now.timestamp(), abs=0.01)}
    assert samples(client, "workspaces_orphans") == {'what="bytes"': 2}


# --- jobs, deployments, hosts and queues --------------------------------------------------------------------


def test_only_what_is_not_over_is_counted(client: FlaskClient, session: Session) -> None:
    workspace = factories.make_workspace(session)
    for number, status in enumerate([*JobStatus, JobStatus.ACTIVE]):
        factories.make_job(session, workspace, f"job-{number}", status)
    for number, state in enumerate([*DeploymentStatus, DeploymentStatus.READY]):
        factories.make_deployment(session, workspace, f"deployment-{number}", state)
    session.commit()

    jobs, deployments = samples(client, "workspaces_jobs"), samples(client, "workspaces_deployments")

    ended = {"cancelled", "completed", "error"}
    assert jobs == {f'status="{one}"': 2 if one == "active" else 1 for one in JobStatus if one not in ended}
    assert deployments == {
        f'status="{one}"': 2 if one == "READY" else 1 for one in DeploymentStatus if one != "DELETED"
    }


def test_a_host_is_shown_for_an_hour_or_while_anything_is_on_it(
    client: FlaskClient, session: Session
) -> None:
    name = "workspaces_runtime_host_last_seen_timestamp_seconds"
    note_alive(session, Process.RUNTIME, ["gpu-1", "gpu-2", "gpu-3"])
    session.commit()
    for host, ago_s in (("gpu-2", 2 * HOUR_S), ("gpu-3", 2 * HOUR_S)):
        age(session, session.get_one(Heartbeat, (Process.RUNTIME.value, host)), ago_s)
    factories.make_job(session, factories.make_workspace(session), status=JobStatus.ACTIVE, host="gpu-3")
    session.commit()

    assert set(samples(client, name)) == {'host="gpu-1"', 'host="gpu-3"'}


def test_the_messages_of_each_queue_are_counted(client: FlaskClient, publisher: RecordingPublisher) -> None:
    publisher.published += [
        Message("a", "cleanup", {}),
        Message("b", "cleanup", {}),
        Message("c", "runtime", {}),
    ]

    assert samples(client, "workspaces_queue_messages") == {'queue="cleanup"': 2, 'queue="runtime"': 1}


def test_without_the_broker_all_but_its_queues_is_shown(
    client: FlaskClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BrokerError("Connection refused") from ConnectionRefusedError("refused")

    monkeypatch.setattr(type(context.publisher), "ping", refuse)

    assert samples(client, "workspaces_queue_messages") == {}
    assert samples(client, "workspaces")
