"""The secrets that the steps of a job name: who may use them, and their values when a step starts.

A name means a secret of the job's own workspace, `workspace/name` one of another. Where a job was asked for, the names
of workspaces become ids: a successor of a name is another workspace. In whose name the job uses secrets is kept with
it, so that the statement that reads the values decides by the roles of that moment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Select, Text, Uuid, bindparam, func, select
from sqlalchemy.orm import Session, undefer

from app.access.authorize import Access, Actor, permitted
from app.access.permissions import Permission
from app.errors import NotFound, SecretsMissing
from app.models import Job, Secret, Workspace
from app.models.workspace import is_active
from app.services.secrets.encryption import Keyring, Sealed

_NOBODY: Mapping[str, Any] = {"identities": [], "email": None, "is_platform_admin": False, "workspaces": {}}
_NOWHERE = str(UUID(int=0))

_NAMED = 5
"""References that an error names."""

USES = Permission.SECRETS_WRITE
"""What a role must permit in the workspace of a secret. A job can print the value, and so who may use a secret may know
it: that is who could replace it, not everybody who may see that it is there."""


def references(step: Mapping[str, Any]) -> dict[str, str]:
    """The secrets that the variables of a step name, by the names of the variables."""
    variables = step.get("environment") or ()
    return {one["name"]: one["from_secret"]["name"] for one in variables if one.get("from_secret")}


def secret_access(
    session: Session, actor: Actor, workspace: Workspace, steps: Iterable[Mapping[str, Any]], *, asked: str
) -> dict[str, Any] | None:
    """In whose name a job of that workspace uses the secrets that its steps name; None if they name none.

    Raises SecretsMissing if one is not there, or is not the actor's to use; `asked` is what cannot be done then.
    """
    named = {_split(name, workspace.name) for step in steps for name in references(step).values()}
    if not named:
        return None
    is_in_scope = actor.principal.has_scope_for("secrets", "read")
    user = replace(actor, permission=USES, is_in_scope=is_in_scope)
    names = [list(part) for part in zip(*named, strict=True)]
    parameters = {**user.parameters, "workspaces": names[0], "names": names[1]}
    found = {(row.workspace, row.name): row.id for row in session.execute(_usable(user.access), parameters)}
    if missing := sorted("/".join(one) for one in named - found.keys()):
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise SecretsMissing(
            f"Unable to {asked} job because one or more referenced secrets were not found or are not accessible. "
            "Verify each platform_spec secret reference uses the expected workspace/name and that you have access: "
            f"{', '.join(missing[:_NAMED])}{more}."
        )
    return {
        "identities": user.parameters["actor_identities"],
        "email": user.parameters["actor_email"],
        "is_platform_admin": actor.principal.is_platform_admin,
        "workspaces": {name: str(workspace_id) for (name, _), workspace_id in found.items()},
    }


def secret_values(session: Session, keys: Keyring, job: Job, step: Mapping[str, Any]) -> dict[str, str]:
    """The values of a step's variables that come from secrets, as the secrets are now.

    Raises NotFound if one is not there any more, or not for the requester of this attempt; and SecretUnreadable.
    """
    access = job.secret_access or _NOBODY
    places = {variable: _place(name, job, access) for variable, name in references(step).items()}
    workspace_ids, names = zip(*places.values(), strict=True)
    parameters = {
        "actor_identities": access["identities"],
        "actor_email": access["email"],
        "workspace_ids": list(workspace_ids),
        "names": list(names),
    }
    user = Access(USES, is_in_scope=True, is_platform_admin=access["is_platform_admin"])
    found = {(one.workspace_id, one.name): one for one in session.scalars(_values(user), parameters)}
    values = {}
    for variable, reference in references(step).items():
        secret = found.get(places[variable])
        if secret is None:
            raise NotFound(
                f"its variable '{variable}' needs the secret '{reference}', which is not there any more, or which "
                "the requester of this attempt may not use any more"
            )
        sealed = Sealed(secret.key_id, secret.ciphertext)
        values[variable] = keys.open(
            sealed, workspace_id=secret.workspace_id, secret_id=secret.id, name=reference
        )
    return values


def _place(reference: str, job: Job, access: Mapping[str, Any]) -> tuple[UUID, str]:
    """The id of the workspace that a reference means, and the name of the secret there."""
    workspace, name = _split(reference, "")
    if not workspace:
        return job.workspace_id, name
    return UUID(access["workspaces"].get(workspace, _NOWHERE)), name


def _split(reference: str, own: str) -> tuple[str, str]:
    """The workspace and the name that a reference means; `own` is the workspace of one without any."""
    workspace, slash, name = reference.partition("/")
    return (workspace, name) if slash else (own, reference)


@cache
def _usable(access: Access) -> Select[str, UUID, str]:
    """The secrets of the parameters `workspaces` and `names`, pair by pair, that the actor may use."""
    named = (
        func.unnest(bindparam("workspaces", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text)))
        .table_valued("workspace", "name")
        .render_derived()
    )
    return (
        select(Workspace.name.label("workspace"), Workspace.id, Secret.name)
        .select_from(Workspace)
        .join(named, named.c.workspace == Workspace.name)
        .join(Secret, (Secret.workspace_id == Workspace.id) & (Secret.name == named.c.name))
        .where(is_active(), permitted(access))
    )


@cache
def _values(access: Access) -> Select[Secret]:
    """The same by the ids of workspaces, with their values."""
    named = (
        func.unnest(bindparam("workspace_ids", type_=ARRAY(Uuid)), bindparam("names", type_=ARRAY(Text)))
        .table_valued("workspace_id", "name")
        .render_derived()
    )
    return (
        select(Secret)
        .join(named, (Secret.workspace_id == named.c.workspace_id) & (Secret.name == named.c.name))
        .join(Workspace, Workspace.id == Secret.workspace_id)
        .where(is_active(), permitted(access))
        .options(undefer(Secret.ciphertext))
    )
