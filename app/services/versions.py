"""Versions of one name, numbered from 1: what deployments and their configurations have in common."""

from typing import TypeVar
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.db import insert_unique
from app.errors import NameTaken, NotFound
from app.models import Deployment, DeploymentConfig, Workspace
from app.models.columns import without_documents

Versioned = TypeVar("Versioned", Deployment, DeploymentConfig)

_LABELS = {Deployment: "Deployment", DeploymentConfig: "Deployment config"}


def versions_of(model: type[Versioned], workspace_id: UUID, name: str) -> Select[Versioned]:
    """A query of every version of the name, oldest first."""
    query = select(model).where(model.workspace_id == workspace_id, model.name == name)
    return query.order_by(model.entity_version)


def lock_versions(
    session: Session, model: type[Versioned], workspace: Workspace, name: str, version: int | None = None
) -> list[Versioned]:
    """Every version of the name, oldest first, or only the given one; all are locked until the transaction ends.

    Their documents are read when they are asked for. Raises NotFound if there is none.
    """
    query = versions_of(model, workspace.id, name)
    # The oldest row first: requests that add or remove versions of one name wait for each other there, and then
    # read again, because the other may have added one. New deployments that refer to a configuration wait, too.
    session.execute(query.with_only_columns(model.id).with_for_update())
    # Rows that were read before they were locked must be read again.
    again = query.options(*without_documents(model)).execution_options(populate_existing=True)
    found = list(session.scalars(again))
    if not found:
        raise NotFound(f"{_LABELS[model]} '{workspace.name}/{name}' not found")
    if version is not None:
        found = [row for row in found if row.entity_version == version]
    if not found:
        raise NotFound(f"{_LABELS[model]} '{workspace.name}/{name}' version '{version}' not found")
    return found


def insert_first_version(session: Session, row: Versioned, workspace: Workspace) -> Versioned:
    """Insert version 1; the object of its row. Raises NameTaken while any version of the name exists."""
    model = type(row)
    taken = NameTaken(
        f"{_LABELS[model]} with workspace '{workspace.name}' and name '{row.name}' already exists"
    )
    # The unique index covers version 1 only, and version 1 can have been deleted before its successors.
    if session.scalar(select(versions_of(model, workspace.id, row.name).exists())):
        raise taken
    return insert_unique(session, row, taken=taken)
