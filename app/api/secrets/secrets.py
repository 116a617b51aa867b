"""Secrets of a workspace over HTTP."""

from typing import Annotated, ClassVar

from flask import Response
from pydantic import AfterValidator, BaseModel, Field, SecretStr
from pydantic_core import PydanticCustomError

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, Forbidden, NameTaken, NotFound, SecretsDisabled, SecretUnreadable
from app.filters.ast import RANGES
from app.filters.fields import Fields
from app.http.field_types import Description, Name, Resource
from app.http.paging import ListQuery, Pagination, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.services.listing import rows_in
from app.services.secrets import records
from app.services.secrets.encryption import Keyring
from app.services.secrets.rotation import rotate

routes = Routes("secrets")
BASE = "/apis/secrets/v2/workspaces/<workspace>/secrets"
ONE = f"{BASE}/<name>"

FIELDS = Fields(
    key=rows.Secret.id,
    columns={
        "workspace": rows.Workspace.name,
        "name": rows.Secret.name,
        "description": rows.Secret.description,
        "created_at": rows.Secret.created_at,
        "updated_at": rows.Secret.updated_at,
    },
    indexed={"name": RANGES, "created_at": RANGES},
)

MOST_BYTES = 64 * 1024
"""Of a value, as UTF-8: half of what Linux lets a variable of a process have."""

_ROTATING_S = 10.0
"""How long one request encrypts anew."""


def _bounded(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode())
    if size > MOST_BYTES:
        message = "The value has {size} bytes as UTF-8, more than the {most} that are kept"
        raise PydanticCustomError("too_long", message, {"size": size, "most": MOST_BYTES})
    return value


Value = Annotated[SecretStr, Field(min_length=1, max_length=MOST_BYTES), AfterValidator(_bounded)]


class SecretCreate(Body):
    """A secret to create. Its value has 64 KiB as UTF-8 at most."""

    may_be_repeated: ClassVar[bool] = False

    name: Name
    value: Value
    description: Description | None = None


class SecretUpdate(Body):
    """A change of a secret. What is null or missing stays as it is."""

    may_be_repeated: ClassVar[bool] = False

    value: Value | None = None
    description: Description | None = None


class SecretQuery(ListQuery):
    """A page of secrets."""

    page_size: int = Field(10, ge=1, le=1000, description="Items per page.")


class Secret(Resource):
    """A secret, without its value."""

    name: str
    workspace: str
    description: str | None
    created_at: Timestamp
    updated_at: Timestamp


class SecretListItem(Secret):
    """A secret in a list; a description that is null is omitted."""

    description: Annotated[str | None, Field(exclude_if=lambda value: value is None)]


class SecretPage(BaseModel):
    """One page of the secrets of a workspace."""

    data: list[SecretListItem]
    pagination: Pagination


class SecretValue(BaseModel):
    """A secret with its value."""

    name: str
    workspace: str
    value: str


class KeyRotation(BaseModel):
    """What a rotation has done."""

    rotated_secrets: int
    success: bool = Field(description="Whether the first key has encrypted every secret.")
    left: int = Field(
        description=(
            "Secrets that other keys have encrypted. Repeat the request; those that stay cannot be decrypted by the "
            "keys of the file."
        )
    )


ITEMS = resources(SecretListItem, rows.Secret, workspace=rows.Workspace.name)


@routes.add(
    "POST",
    BASE,
    permission=Permission.SECRETS_WRITE,
    status=201,
    returns=Secret,
    raises=(NotFound, NameTaken, SecretsDisabled),
)
def create_secret(call: RequestContext, workspace: str, body: SecretCreate) -> Secret:
    """Create a secret.

    No answer has its value but that of `/access`. The steps of jobs get it as a variable, by `from_secret`.
    """
    secret = records.create_secret(
        call.session,
        call.context.settings,
        call.actor,
        workspace,
        body.name,
        value=body.value.get_secret_value(),
        description=body.description,
    )
    return Secret.from_row(secret, workspace)


@routes.add(
    "GET", BASE, permission=Permission.SECRETS_READ, returns=SecretPage, raises=(BadRequest, NotFound)
)
def list_secrets(call: RequestContext, workspace: str, query: SecretQuery) -> Response:
    """List secrets, without their values.

    Workspace `-` means all workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.Secret)
    return list_page(call, query, found, FIELDS, items=ITEMS, envelope=_page)


def _page(*, data: list[SecretListItem], pagination: Pagination, **_: object) -> SecretPage:
    # The peer's has neither sort nor filter.
    return SecretPage(data=data, pagination=pagination)


@routes.add("GET", ONE, permission=Permission.SECRETS_READ, returns=Secret, raises=(NotFound,))
def get_secret(call: RequestContext, workspace: str, name: str) -> Secret:
    """Get a secret, without its value."""
    return Secret.from_row(records.readable_secret(call.session, call.actor, workspace, name), workspace)


@routes.add(
    "PATCH",
    ONE,
    permission=Permission.SECRETS_WRITE,
    returns=Secret,
    raises=(NotFound, SecretsDisabled),
)
def update_secret(call: RequestContext, workspace: str, name: str, body: SecretUpdate) -> Secret:
    """Change the value or the description of a secret.

    A step that starts afterwards gets the new value; one that runs keeps the old one.
    """
    secret = records.update_secret(
        call.session,
        call.context.settings,
        call.actor,
        workspace,
        name,
        value=body.value.get_secret_value() if body.value else None,
        description=body.description,
    )
    return Secret.from_row(secret, workspace)


@routes.add("DELETE", ONE, permission=Permission.SECRETS_WRITE, status=204, raises=(NotFound,))
def delete_secret(call: RequestContext, workspace: str, name: str) -> None:
    """Delete a secret.

    A job whose step needs it and has not started ends as `error`.
    """
    records.delete_secret(call.session, call.actor, workspace, name)


@routes.add(
    "GET",
    f"{ONE}/access",
    permission=Permission.SECRETS_ACCESS,
    returns=SecretValue,
    raises=(Forbidden, NotFound, SecretsDisabled, SecretUnreadable),
)
def access_secret(call: RequestContext, workspace: str, name: str) -> SecretValue:
    """Get a secret with its value.

    For the platform's services alone, in their own name or for a user who may read the secret; not for
    PlatformAdmins. While authentication is off, for everybody.
    """
    value = records.access_secret(call.session, call.context.settings, call.actor, workspace, name)
    return SecretValue(name=name, workspace=workspace, value=value)


@routes.add(
    "POST",
    "/apis/secrets/v2/rotate-encryption-keys",
    permission=Permission.SECRETS_ROTATE,
    status=202,
    returns=KeyRotation,
    raises=(SecretsDisabled,),
    transaction=False,
)
def rotate_encryption_keys(call: RequestContext) -> KeyRotation:
    """Encrypt the values of all secrets anew, by the first key of the file.

    For some ten seconds; what was done stays done, and the next request goes on.
    """
    call.transact(lambda _: None)  # who may not is not told whether there are keys
    done = rotate(call.transact, Keyring.read(call.context.settings), call.actor, within_s=_ROTATING_S)
    return KeyRotation(rotated_secrets=done.rotated, success=not done.left, left=sum(done.left.values()))
