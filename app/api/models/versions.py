"""The versions behind a name, as the routes of deployments and of their configurations read them."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import aliased

from app import models as rows
from app.errors import BadRequest, NotFound
from app.http.route import RequestContext
from app.services.versions import versions_of
from app.services.workspaces import readable_workspace

M = TypeVar("M", rows.Deployment, rows.DeploymentConfig)


@dataclass(frozen=True)
class Versions(Generic[M]):
    """Reads the versions of a model; `noun` names it in messages."""

    model: type[M]
    noun: str

    def every(self, call: RequestContext, workspace: str, name: str) -> list[M]:
        """Every version, oldest first; none if nothing has the name. Raises as `readable_workspace` does."""
        workspace_row = readable_workspace(call.session, call.actor, workspace)
        return versions_of(call.session, self.model, workspace_row.id, name)

    def newest(self, call: RequestContext, workspace: str, name: str) -> M:
        """The newest version. Raises NotFound."""
        return self._existing(call, workspace, name)[-1]

    def get(self, call: RequestContext, workspace: str, name: str, version: str) -> M:
        """The version that a path names. Raises BadRequest if it is not a number, and NotFound."""
        number = version_number(version)
        for row in self._existing(call, workspace, name):
            if row.entity_version == number:
                return row
        raise NotFound(f"{self.noun} '{workspace}/{name}' version '{version}' not found")

    def is_newest(self) -> ColumnElement[bool]:
        """Whether a row is the newest version of its name, as a condition of a query."""
        other = aliased(self.model)
        newest = select(func.max(other.entity_version)).where(
            other.workspace_id == self.model.workspace_id, other.name == self.model.name
        )
        return self.model.entity_version == newest.scalar_subquery()

    def _existing(self, call: RequestContext, workspace: str, name: str) -> list[M]:
        found = self.every(call, workspace, name)
        if not found:
            raise NotFound(f"{self.noun} '{workspace}/{name}' not found")
        return found


def version_number(text: str) -> int:
    """The version that a path or query names. Raises BadRequest if it is not a number."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"Version '{text[:50]}' is not a number from 1 to 999999999.")
    return int(text)
