"""Role bindings over HTTP: the single grants behind members, across workspaces."""

from uuid import UUID

from flask import Response
from pydantic import Field

from app import models as rows
from app.access.permissions import Permission
from app.access.roles import OTHER_NAMES, Role
from app.api.entities.members import PrincipalId
from app.clock import Timestamp
from app.errors import BadRequest, Conflict, LastAdmin, NotFound, Unprocessable
from app.filters.fields import Fields
from app.http.field_types import Deleted, Resource, ShortText
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.services import members
from app.services.listing import EVERYWHERE, rows_in

routes = Routes("role bindings")
BASE = "/apis/auth/v2/iam/role-bindings"
ONE = f"{BASE}/<name>"

FIELDS = Fields(
    key=rows.RoleBinding.id,
    columns={
        "id": rows.RoleBinding.id,
        "name": rows.RoleBinding.name,
        "principal": rows.RoleBinding.principal,
        "workspace": rows.Workspace.name,
        "role": rows.RoleBinding.role,
        "granted_by": rows.RoleBinding.granted_by,
        "granted_at": rows.RoleBinding.granted_at,
        "revoked_at": rows.RoleBinding.revoked_at,
        "is_active": rows.RoleBinding.revoked_at.is_(None),
        # The published default sort: a binding is created by its grant.
        "created_at": rows.RoleBinding.granted_at,
    },
    other_names={"role": OTHER_NAMES},
)


class RoleBindingCreate(Body):
    """A role to grant to a principal in a workspace."""

    principal: PrincipalId
    role: Role
    workspace: ShortText = Field("system", description="The workspace in which the role counts.")


class RoleBinding(Resource):
    """A grant. It counts until `revoked_at` is set."""

    id: UUID
    name: str
    principal: str
    workspace: str
    role: Role
    granted_by: str
    granted_at: Timestamp
    revoked_at: Timestamp | None


ITEMS = resources(RoleBinding, rows.RoleBinding, workspace=rows.Workspace.name)


class RoleBindingQuery(ListQuery):
    """A page of role bindings."""

    page_size: int = Field(10, ge=1, le=1000, description="Items per page.")
    sort: str = Field("created_at", description="Field to sort by; a leading `-` sorts descending.")


@routes.add(
    "POST",
    BASE,
    permission=Permission.ROLE_BINDINGS_WRITE,
    ignored=("wait_role_propagation",),
    status=201,
    returns=RoleBinding,
    raises=(Conflict, Unprocessable),
)
def create_role_binding(call: RequestContext, body: RoleBindingCreate) -> RoleBinding:
    """Grant a role.

    A revoked role is granted again under the same name. A role that the principal already holds: 409.
    """
    binding = members.grant_binding(call.session, call.actor, body.workspace, body.principal, body.role)
    return RoleBinding.from_row(binding, body.workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.ROLE_BINDINGS_READ,
    returns=Page[RoleBinding],
    raises=(BadRequest,),
)
def list_role_bindings(call: RequestContext, query: RoleBindingQuery) -> Response:
    """List role bindings.

    Role bindings of all workspaces that you administer. `filter[is_active]=true` leaves out revoked ones.
    """
    found = rows_in(call.session, call.actor, EVERYWHERE, rows.RoleBinding)
    return list_page(call, query, found, FIELDS, items=ITEMS)


@routes.add("GET", ONE, permission=Permission.ROLE_BINDINGS_READ, returns=RoleBinding, raises=(NotFound,))
def get_role_binding(call: RequestContext, name: str) -> RoleBinding:
    """Get a role binding.

    Its name is unique across workspaces.
    """
    return RoleBinding.from_row(*members.find_binding(call.session, call.actor, name))


@routes.add(
    "DELETE",
    ONE,
    permission=Permission.ROLE_BINDINGS_WRITE,
    ignored=("wait_role_propagation",),
    returns=Deleted,
    raises=(NotFound, Conflict, LastAdmin),
)
def revoke_role_binding(call: RequestContext, name: str) -> Deleted:
    """Revoke a role.

    It ends immediately. The binding stays readable with its `revoked_at`; revoking it again: 409.
    The last Admin of a workspace cannot lose the role: 409.
    """
    members.revoke_binding(call.session, call.actor, name)
    return Deleted(message="Resource deleted successfully.", id=name)
