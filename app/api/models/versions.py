"""The versions behind a name, as the routes of deployments and of their configurations read them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from flask import Response
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import aliased

from app import models as rows
from app.access.authorize import require_authentic
from app.errors import BadRequest, NotFound
from app.http.route import RequestContext
from app.http.transfers.row_stream import RowStream
from app.http.transfers.row_text import RowText
from app.services.listing import rows_in
from app.services.versions import versions_of
from app.services.workspaces import readable_workspace

M = TypeVar("M", rows.Deployment, rows.DeploymentConfig)


@dataclass(frozen=True)
class Versions(Generic[M]):
    """Reads the versions of a model; `noun` names it in messages."""

    model: type[M]
    noun: str

    def every(self, call: RequestContext, workspace: str, name: str, *, items: RowText) -> Response:
        """Every version, oldest first; none if nothing has the name. Raises as `readable_workspace` does."""
        found = rows_in(call.session, call.actor, workspace, self.model)
        named = found.rows.where(self.model.name == name)
        rows = RowStream(named, (self.model.entity_version.asc(),), items)
        first = rows.first(call.session, found.parameters)
        if not first.number:
            require_authentic(call.session, call.actor)
        return rows.answer(
            call.context, first, found.parameters, found.may_read, begin="[", end=lambda _: "]"
        )

    def newest(self, call: RequestContext, workspace: str, name: str) -> M:
        """The newest version. Raises NotFound."""
        query = self._named(call, workspace, name).order_by(None).order_by(self.model.entity_version.desc())
        found = call.session.scalars(query.limit(1)).one_or_none()
        if found is None:
            raise NotFound(f"{self.noun} '{workspace}/{name}' not found")
        return found

    def get(self, call: RequestContext, workspace: str, name: str, version: str) -> M:
        """The version that a path names. Raises BadRequest if it is not a number, and NotFound."""
        query = self._named(call, workspace, name)
        numbered = query.where(self.model.entity_version == version_number(version))
        found = call.session.scalars(numbered).one_or_none()
        if found is None:
            self.newest(call, workspace, name)  # or NotFound, which does not speak of a version
            raise NotFound(f"{self.noun} '{workspace}/{name}' version '{version}' not found")
        return found

    @cached_property
    def is_newest(self) -> ColumnElement[bool]:
        """Whether a row is the newest version of its name, as a condition of a query."""
        other = aliased(self.model)
        newest = select(func.max(other.entity_version)).where(
            other.workspace_id == self.model.workspace_id, other.name == self.model.name
        )
        return self.model.entity_version == newest.scalar_subquery()

    def _named(self, call: RequestContext, workspace: str, name: str) -> Select[M]:
        workspace_row = readable_workspace(call.session, call.actor, workspace)
        return versions_of(self.model, workspace_row.id, name)


def version_number(text: str) -> int:
    """The version that a path or query names. Raises BadRequest if it is not a number."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"Version '{text[:50]}' is not a number from 1 to 999999999.")
    return int(text)
