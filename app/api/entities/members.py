"""Members of a workspace over HTTP."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import func, select

from app.access.permissions import Permission
from app.access.principal import MAX_EMAIL_CHARS, is_name
from app.access.roles import Role
from app.clock import Timestamp
from app.errors import LastAdmin, NotFound, Unprocessable
from app.http.field_types import Deleted, Resource
from app.http.paging import MAX_PAGE, Pagination
from app.http.route import Body, Query, RequestContext, Routes
from app.services import members

routes = Routes("members")
BASE = "/apis/entities/v2/workspaces/<workspace>/members"
ONE = f"{BASE}/<path:principal>"  # the name of a group may contain slashes


def _valid_principal(principal: str) -> str:
    # No caller can have such a name, so it would hold its role for nobody and could be the last Admin.
    if not is_name(principal, MAX_EMAIL_CHARS):
        raise ValueError("a principal is printable text with no white space at its ends")
    return principal


PrincipalId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_EMAIL_CHARS,
        description="An email, a subject id, a group's name, or `*` for every authenticated user: printable, with no "
        "white space at its ends.",
    ),
    AfterValidator(_valid_principal),
]

Roles = Annotated[list[Role], Field(min_length=1, max_length=len(Role))]


class MemberCreate(Body):
    """A principal to add, and its roles."""

    principal: PrincipalId
    roles: Roles = Field([Role.EDITOR], validate_default=True)


class MemberUpdate(Body):
    """The complete roles of a member."""

    roles: Roles


class Member(Resource):
    """A member. `granted_at` and `granted_by` belong to its earliest role."""

    principal: str
    roles: list[Role]
    granted_at: Timestamp
    granted_by: str


class MemberList(BaseModel):
    """Members of a workspace."""

    data: list[Member]
    pagination: Pagination


class MembersQuery(Query):
    """Paging of the members of a workspace."""

    page: int = Field(1, ge=1, le=MAX_PAGE)
    page_size: int = Field(1000, ge=1, le=1000)


@routes.add("GET", BASE, permission=Permission.MEMBERS_READ, returns=MemberList, raises=(NotFound,))
def list_members(call: RequestContext, workspace: str, query: MembersQuery) -> MemberList:
    """List members.

    Every principal with a role in the workspace, the latest grant first; a thousand to a page unless asked otherwise.
    """
    found = members.members_of(call.session, call.actor, workspace)
    total = call.session.scalar(select(func.count()).select_from(found.order_by(None).subquery())) or 0
    page = call.session.execute(found.limit(query.page_size).offset((query.page - 1) * query.page_size))
    data = [Member.from_row(members.member_in(who, roles, at, by)) for who, roles, at, by in page]
    pagination = Pagination.of(query.page, query.page_size, number=len(data), total=total)
    return MemberList(data=data, pagination=pagination)


@routes.add(
    "POST",
    BASE,
    permission=Permission.MEMBERS_WRITE,
    ignored=("wait_role_propagation",),
    status=201,
    returns=Member,
    raises=(NotFound, Unprocessable),
)
def add_member(call: RequestContext, workspace: str, body: MemberCreate) -> Member:
    """Add a member.

    Roles that the principal already holds stay; revoked ones are granted again.
    The answer lists all roles of the member.
    """
    member = members.add_member(call.session, call.actor, workspace, body.principal, body.roles)
    return Member.from_row(member)


@routes.add(
    "PUT",
    ONE,
    permission=Permission.MEMBERS_WRITE,
    ignored=("wait_role_propagation",),
    returns=Member,
    raises=(NotFound, LastAdmin, Unprocessable),
)
def replace_roles(call: RequestContext, workspace: str, principal: PrincipalId, body: MemberUpdate) -> Member:
    """Replace the roles of a member.

    A principal that is no member becomes one. The last Admin of a workspace must stay Admin: 409.
    """
    member = members.replace_roles(call.session, call.actor, workspace, principal, body.roles)
    return Member.from_row(member)


@routes.add(
    "DELETE",
    ONE,
    permission=Permission.MEMBERS_WRITE,
    ignored=("wait_role_propagation",),
    returns=Deleted,
    raises=(NotFound, LastAdmin),
)
def remove_member(call: RequestContext, workspace: str, principal: str) -> Deleted:
    """Remove a member.

    All roles of the principal in the workspace are revoked immediately. The last Admin cannot be removed: 409.
    """
    members.remove_member(call.session, call.actor, workspace, principal)
    return Deleted(message=f"Member removed from workspace '{workspace}'", id=principal)
