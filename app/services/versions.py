"""Versions of one name, numbered from 1: what deployments and their configurations have in common."""

from typing import TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import insert_unique
from app.errors import NameTaken, NotFound
from app.models import Deployment, DeploymentConfig, Workspace

Versioned = TypeVar("Versioned", Deployment, DeploymentConfig)

_LABELS = {Deployment: "Deployment", DeploymentConfig: "Deployment config"}


def versions_of(session: Session, model: type[Versioned], workspace_id: UUID, name: str) -> list[Versioned]:
    """Every version of the name, oldest first."""
    query = select(model).where(model.workspace_id == workspace_id, model.name == name)
    # Rows that were read before they were locked must be read again.
    query = query.order_by(model.entity_version).execution_options(populate_existing=True)
    return list(session.scalars(query))


def lock_versions(
    session: Session, model: type[Versioned], workspace: Workspace, name: str, version: int | None = None
) -> list[Versioned]:
    """Every version of the name, oldest first, or only the given one; all are locked until the transaction ends.

    Raises NotFound if there is none.
    """
    query = select(model.id).where(model.workspace_id == workspace.id, model.name == name)
    # The oldest row first: requests that add or remove versions of one name wait for each other there, and then
    # read again, because the other may have added one. New deployments that refer to a configuration wait, too.
    session.execute(query.order_by(model.entity_version).with_for_update())
    found = versions_of(session, model, workspace.id, name)
    if not found:
        raise NotFound(f"{_LABELS[model]} '{workspace.name}/{name}' not found")
    if version is not None:
        found = [row for row in found if row.entity_version == version]
    if not found:
        raise NotFound(f"{_LABELS[model]} '{workspace.name}/{name}' version '{version}' not found")
    return found


def insert_first_version(session: Session, row: Versioned, workspace: Workspace) -> None:
    """Insert version 1. Raises NameTaken while any version of the name exists."""
    model = type(row)
    taken = NameTaken(
        f"{_LABELS[model]} with workspace '{workspace.name}' and name '{row.name}' already exists"
    )
    # The unique index covers version 1 only, and version 1 can have been deleted before its successors.
    if versions_of(session, model, workspace.id, row.name):
        raise taken
    insert_unique(session, row, taken=taken)
