"""A workspace with one of everything, for requests to every route."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app import clock
from app.db import Base
from app.lifecycle import DeletionState, DeploymentStatus, FailureClass, JobStatus
from app.models import Deletion, DeletionFailure, Fileset, Job, Workspace
from app.services import job_steps
from app.storage.blob_store import BlobStore
from tests import factories


@dataclass(frozen=True)
class World:
    """The objects of requests: values for the parameters of every route."""

    workspace: Workspace
    fileset: Fileset
    failed: Deletion
    """A FAILED deletion of another workspace, with a resource that can be skipped."""
    pending: Deletion
    """One that has not begun."""
    stuck: str
    """Id of that resource."""
    parameters: dict[str, str]

    def publish_file(self, store: BlobStore) -> None:
        """Store the one file that there is."""
        store.publish(store.stage(self.workspace.id, self.fileset.id, "a.txt", [b"bytes"]))


def make_world(session: Session, name: str) -> World:
    """Create it, but for its file; `name` distinguishes its names from those of other worlds."""
    workspace = factories.make_workspace(session, name)
    train = factories.make_job(
        session, workspace, "train", JobStatus.ACTIVE, platform_spec={"steps": [{"name": "main"}]}
    )
    _with_a_step_and_a_result(train, name)
    factories.make_job(
        session, workspace, "ended", JobStatus.COMPLETED, platform_spec={"steps": [{"name": "main"}]}
    )
    factories.make_config(session, workspace, "small")
    factories.make_config(session, workspace, "unused")
    factories.make_deployment(
        session,
        workspace,
        "chat",
        DeploymentStatus.READY,
        address="http://127.0.0.1:1",
        healthy_at=clock.now() + timedelta(hours=1),
    )
    fileset = factories.make_fileset(session, workspace, "data")
    entity = factories.make_entity(session, workspace, "thing")
    factories.make_project(session, workspace, "alpha")
    factories.make_secret(session, workspace, "token")
    binding = factories.make_binding(session, workspace, f"member-of-{name}")
    factories.make_binding(session, workspace, f"admin-of-{name}", "Admin")
    webhook = factories.make_webhook(session)
    delivery = factories.make_delivery(session, webhook)
    failed = _deletion(session, f"{name}-failed", DeletionState.FAILED)
    pending = _deletion(session, f"{name}-pending", DeletionState.DELETING)
    session.commit()
    return World(
        workspace=workspace,
        fileset=fileset,
        failed=failed,
        pending=pending,
        stuck=session.scalars(
            select(DeletionFailure.resource_id).where(DeletionFailure.deletion_id == failed.id)
        ).one(),
        parameters={
            "workspace": name,
            "principal": f"member-of-{name}",
            "entity_type": "widget",
            "entity_id": str(entity.id),
            "deletion_id": str(failed.id),
            "binding": binding.name,
            "path": "a.txt",
            "version": "1",
            "step": "main",
            "task": "main",
            "result": "model",
            "webhook_id": str(webhook.id),
            "delivery_id": str(delivery.id),
            "jti": f"ak_{'0' * 32}",
        },
    )


def _with_a_step_and_a_result(job: Job, workspace: str) -> None:
    job_steps.begin_step(job, "main")
    at = clock.now().isoformat()
    job.results = [
        {
            "name": "model",
            "artifact_url": f"{workspace}/data#a.txt",
            "artifact_storage_type": "fileset",
            "created_at": at,
            "updated_at": at,
        }
    ]


def _deletion(session: Session, name: str, state: DeletionState) -> Deletion:
    """A deletion requested by another user."""
    doomed = factories.make_workspace(session, name, state=state.value)
    now = clock.now()
    has_failed = state is DeletionState.FAILED
    deletion = Deletion(
        workspace_id=doomed.id,
        workspace_name=name,
        state=state,
        requested_by="somebody-else",
        purge_after=now + timedelta(days=1),
        started_at=now if has_failed else None,
        reason="a test says so" if has_failed else None,
    )
    session.add(deletion)
    session.flush()  # its failure refers to it
    if has_failed:
        stuck = factories.make_fileset(session, doomed, "stuck")
        session.add(
            DeletionFailure(
                deletion_id=deletion.id,
                kind="filesets",
                resource_id=str(stuck.id),
                name="stuck",
                error_class=FailureClass.PERMANENT,
                message="permission denied",
                first_seen_at=now,
                last_seen_at=now,
            )
        )
    return deletion


def everything(session: Session) -> str:
    """A digest of every row in the database: equal before and after a request that changed nothing."""
    session.rollback()
    digests = " || ".join(
        f"(SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {table.name} t)"
        for table in Base.metadata.sorted_tables
    )
    return session.scalars(text(f"SELECT md5({digests})")).one()
