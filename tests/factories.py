"""Rows in any state, inserted without the services."""

from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.clock import database_now
from app.db import Base
from app.lifecycle import (
    AccessKeyHolder,
    DeletionState,
    DeploymentStatus,
    FailureClass,
    JobStatus,
    NotificationType,
    WorkspaceState,
)
from app.models import (
    AccessKey,
    Deletion,
    DeletionEvent,
    DeletionFailure,
    Delivery,
    Deployment,
    DeploymentConfig,
    Entity,
    Fileset,
    Job,
    JobLog,
    Project,
    RoleBinding,
    Secret,
    Subscription,
    Workspace,
)
from app.notifications.signing import new_secret, seal_secret
from app.services.secrets.encryption import Keyring
from app.storage.blob_store import BlobStore
from tests.support.keys import KEY

Row = TypeVar("Row", bound=Base)


def make_workspace(session: Session, name: str = "ml-team", **values: Any) -> Workspace:
    return _added(session, Workspace(name=name, **values))


def make_job(
    session: Session,
    workspace: Workspace,
    name: str = "train",
    status: JobStatus = JobStatus.CREATED,
    **values: Any,
) -> Job:
    fileset = values.get("output_location") or f"job-fileset-{name}"
    values = {"platform_spec": {"steps": []}, "fileset": fileset, **values}
    return _added(session, Job(workspace_id=workspace.id, name=name, source="tests", status=status, **values))


def make_job_log(session: Session, job: Job, /, message: str = "hello", **values: Any) -> JobLog:
    values = {"workspace_id": job.workspace_id, "attempt_id": job.attempt_id, "step": "main", **values}
    return _added(session, JobLog(job_id=job.id, task="main", message=message, **values))


def make_access_key(session: Session, jti: str, principal: str, **values: Any) -> AccessKey:
    values = {"holder": AccessKeyHolder.USER, "created_by": principal, **values}
    return _added(session, AccessKey(jti=jti, principal=principal, **values))


def make_subscription(
    session: Session, url: str = "https://hooks.example.com/", **values: Any
) -> Subscription:
    return _added(session, Subscription(url=url, types=["deletion.failed"], **values))


def make_webhook(session: Session) -> Subscription:
    """One with a secret, for the keys of the tests."""
    webhook = make_subscription(session)
    sealed = seal_secret(Keyring([KEY]), webhook.id, new_secret())
    webhook.key_id, webhook.secret = sealed.key_id, sealed.ciphertext
    return webhook


def make_delivery(session: Session, subscription: Subscription, **values: Any) -> Delivery:
    now = database_now()
    values = {"type": NotificationType.TEST.value, "due_at": now, "next_attempt_at": now, **values}
    return _added(session, Delivery(subscription_id=subscription.id, **values))


def make_config(session: Session, workspace: Workspace, name: str = "small") -> DeploymentConfig:
    return _added(
        session,
        DeploymentConfig(workspace_id=workspace.id, name=name, entity_version=1, engine="generic"),
    )


def make_deployment(
    session: Session,
    workspace: Workspace,
    name: str = "chat",
    status: DeploymentStatus = DeploymentStatus.CREATED,
    **values: Any,
) -> Deployment:
    values = {"entity_version": 1, **values}
    return _added(
        session,
        Deployment(
            workspace_id=workspace.id,
            name=name,
            config="small",
            config_version=1,
            status=status,
            **values,
        ),
    )


def make_fileset(
    session: Session,
    workspace: Workspace,
    name: str = "data",
    *,
    store: BlobStore | None = None,
    files: dict[str, bytes] | None = None,
) -> Fileset:
    fileset = _added(session, Fileset(workspace_id=workspace.id, name=name))
    for path, content in (files or {}).items():
        assert store is not None
        store.publish(store.stage(workspace.id, fileset.id, path, [content]))
    return fileset


def make_entity(
    session: Session,
    workspace: Workspace,
    name: str = "thing",
    *,
    entity_type: str = "widget",
    parent: Entity | None = None,
) -> Entity:
    return _added(
        session,
        Entity(
            workspace_id=workspace.id,
            entity_type=entity_type,
            name=name,
            parent_id=parent.id if parent else None,
        ),
    )


def make_failed_deletion(
    session: Session, name: str, *, error_class: FailureClass = FailureClass.PERMANENT
) -> Deletion:
    """A deletion of a workspace of that name that is FAILED since now, over a fileset that could not be deleted."""
    workspace = make_workspace(session, name, state=WorkspaceState.FAILED)
    stuck = make_fileset(session, workspace, "stuck")
    deletion = _added(
        session,
        Deletion(
            workspace_id=workspace.id,
            workspace_name=name,
            requested_by="somebody",
            state=DeletionState.FAILED,
            phase="filesets",
            started_at=database_now(),
            reason=f"filesets/stuck: denied ({error_class})",
            failed_at=database_now(),
            created_counts={"filesets": 1},
        ),
    )
    session.add(
        DeletionFailure(
            deletion_id=deletion.id,
            kind="filesets",
            resource_id=str(stuck.id),
            name="stuck",
            error_class=error_class,
            message="denied",
            cause="denied",
            first_seen_at=database_now(),
            last_seen_at=database_now(),
        )
    )
    _added(session, DeletionEvent(deletion_id=deletion.id, actor="w", event="failed", at=database_now()))
    return deletion


def make_project(session: Session, workspace: Workspace, name: str = "alpha") -> Project:
    return _added(session, Project(workspace_id=workspace.id, name=name))


def make_secret(
    session: Session, workspace: Workspace, name: str = "token", value: str = "open sesame"
) -> Secret:
    secret_id = uuid7()
    sealed = Keyring([KEY]).seal(value, workspace_id=workspace.id, secret_id=secret_id)
    secret = Secret(
        id=secret_id,
        workspace_id=workspace.id,
        name=name,
        key_id=sealed.key_id,
        ciphertext=sealed.ciphertext,
    )
    return _added(session, secret)


def make_binding(
    session: Session, workspace: Workspace, principal: str = "ann@example.com", role: str = "Viewer"
) -> RoleBinding:
    return _added(
        session,
        RoleBinding(workspace_id=workspace.id, name=f"rb-{principal}", principal=principal, role=role),
    )


def fill(session: Session, store: BlobStore, workspace: Workspace, *, number: int = 2) -> dict[str, int]:
    """Insert `number` rows of every kind into a workspace; returns the number of rows per table."""
    for i in range(number):
        make_job_log(session, make_job(session, workspace, f"job-{i}"))
        make_config(session, workspace, f"config-{i}")
        make_deployment(session, workspace, f"deployment-{i}")
        make_fileset(session, workspace, f"fileset-{i}", store=store, files={"a/b.txt": b"bytes"})
        parent = make_entity(session, workspace, f"entity-{i}")
        make_entity(session, workspace, f"child-{i}", parent=parent)
        make_project(session, workspace, f"project-{i}")
        make_secret(session, workspace, f"secret-{i}")
        make_binding(session, workspace, f"user-{i}@example.com")
    session.commit()
    return {
        "jobs": number,
        "job_logs": number,
        "deployments": number,
        "deployment_configs": number,
        "filesets": number,
        "entities": 2 * number,
        "projects": number,
        "secrets": number,
        "role_bindings": number,
    }


def rows_of(session: Session, workspace_id: UUID) -> dict[str, int]:
    """The number of rows of a workspace per table; tables without any are left out."""
    session.rollback()  # a fresh snapshot: others have committed meanwhile
    counts = {}
    for mapper in Base.registry.mappers:
        model = mapper.class_
        if hasattr(model, "workspace_id") and model.__tablename__ not in (
            "deletions",
            "audit_records",
            "resource_counts",
        ):
            number = session.query(model).filter(model.workspace_id == workspace_id).count()
            counts |= {model.__tablename__: number} if number else {}
    return counts


def _added(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()  # later rows refer to its id
    return row
