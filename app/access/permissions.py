"""The table of permissions, and the roles that include each. Each route names one permission."""

from enum import StrEnum

from app.access.roles import Role


class Permission(StrEnum):
    """`resource:action`, alphabetical."""

    ACCESS_KEYS_READ = "access_keys:read"
    ACCESS_KEYS_WRITE = "access_keys:write"
    AUDIT_READ = "audit:read"
    CLEANUP_CONTROL = "cleanup:control"
    CLEANUP_READ = "cleanup:read"
    DELETIONS_OPERATE = "deletions:operate"
    DELETIONS_READ = "deletions:read"
    DELETIONS_RESTORE = "deletions:restore"
    DEPLOYMENTS_READ = "deployments:read"
    DEPLOYMENTS_WRITE = "deployments:write"
    ENTITIES_READ = "entities:read"
    ENTITIES_WRITE = "entities:write"
    FILESETS_READ = "filesets:read"
    FILESETS_WRITE = "filesets:write"
    HOSTS_PURGE = "hosts:purge"
    HOSTS_READ = "hosts:read"
    JOBS_READ = "jobs:read"
    JOBS_REPORT = "jobs:report"
    JOBS_WRITE = "jobs:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    METRICS_READ = "metrics:read"
    PROFILES_READ = "profiles:read"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    PUBLIC = "public:read"
    ROLE_BINDINGS_READ = "role_bindings:read"
    ROLE_BINDINGS_WRITE = "role_bindings:write"
    SECRETS_ACCESS = "secrets:access"
    SECRETS_READ = "secrets:read"
    SECRETS_ROTATE = "secrets:rotate"
    SECRETS_WRITE = "secrets:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    WORKSPACES_CREATE = "workspaces:create"
    WORKSPACES_DELETE = "workspaces:delete"
    WORKSPACES_READ = "workspaces:read"
    WORKSPACES_UPDATE = "workspaces:update"


P = Permission

_VIEWER = {
    *(P.WORKSPACES_READ, P.MEMBERS_READ, P.PROJECTS_READ, P.ENTITIES_READ),
    *(P.FILESETS_READ, P.JOBS_READ, P.DEPLOYMENTS_READ, P.SECRETS_READ),
}
_EDITOR = _VIEWER | {
    *(P.PROJECTS_WRITE, P.ENTITIES_WRITE, P.FILESETS_WRITE, P.SECRETS_WRITE),
    *(P.JOBS_WRITE, P.JOBS_REPORT, P.DEPLOYMENTS_WRITE),
}
_ADMIN = _EDITOR | {
    *(P.WORKSPACES_UPDATE, P.WORKSPACES_DELETE, P.MEMBERS_WRITE),
    *(P.ROLE_BINDINGS_READ, P.ROLE_BINDINGS_WRITE),
}

TABLE: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(_VIEWER),
    Role.JOB_RUNNER: frozenset({P.JOBS_REPORT}),
    Role.EDITOR: frozenset(_EDITOR),
    Role.ADMIN: frozenset(_ADMIN),
    Role.WORKSPACE_CREATOR: frozenset({P.WORKSPACES_CREATE}),
    Role.PLATFORM_ADMIN: frozenset(Permission) - {P.SECRETS_ACCESS},
}
"""The permissions of each role, in the workspace of its binding; PlatformAdmin's apply in every workspace.

The values of secrets are for the platform's services alone, which have no roles: the service of secrets checks that.
"""

OPEN = frozenset({P.PUBLIC, P.METRICS_READ})
"""Permissions that need no authentication. The handler of /metrics checks its callers itself."""

AUTHENTICATED = frozenset(
    {P.PROFILES_READ, P.DELETIONS_READ, P.DELETIONS_RESTORE, P.ACCESS_KEYS_READ, P.ACCESS_KEYS_WRITE}
)
"""Permissions of every authenticated caller; those on deletions and access keys cover only the caller's own."""

PLATFORM_WIDE = frozenset(
    {
        *(P.WORKSPACES_CREATE, P.AUDIT_READ, P.CLEANUP_READ, P.CLEANUP_CONTROL, P.DELETIONS_OPERATE),
        *(P.SECRETS_ROTATE, P.HOSTS_READ, P.HOSTS_PURGE, P.WEBHOOKS_READ, P.WEBHOOKS_WRITE),
    }
)
"""Permissions that come from roles in `system`."""

WITHOUT_WORKSPACE = AUTHENTICATED | PLATFORM_WIDE
"""Permissions that concern no workspace: they are checked before the handler runs, all others in its queries."""


def roles_permitting(permission: Permission) -> list[Role]:
    """The roles that include the permission, weakest first."""
    return [role for role in Role if permission in TABLE[role]]
