"""What can be permitted, and which role permits it: the whole table. Each route names one permission."""

from enum import StrEnum

from app.access.roles import Role


class Permission(StrEnum):
    """`resource:action`, alphabetical."""

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
    WORKSPACES_CREATE = "workspaces:create"
    WORKSPACES_DELETE = "workspaces:delete"
    WORKSPACES_READ = "workspaces:read"
    WORKSPACES_UPDATE = "workspaces:update"


P = Permission

_VIEWER = {
    *(P.WORKSPACES_READ, P.MEMBERS_READ, P.PROJECTS_READ, P.ENTITIES_READ),
    *(P.FILESETS_READ, P.JOBS_READ, P.DEPLOYMENTS_READ),
}
_EDITOR = _VIEWER | {
    *(P.PROJECTS_WRITE, P.ENTITIES_WRITE, P.FILESETS_WRITE),
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
    Role.PLATFORM_ADMIN: frozenset(Permission),
}
"""What each role permits in the workspace where it is held; PlatformAdmin everywhere."""

OPEN = frozenset({P.PUBLIC, P.METRICS_READ})
"""Asked of nobody in particular: nobody has to say who they are. /metrics looks for itself who asks."""

AUTHENTICATED = frozenset({P.PROFILES_READ, P.DELETIONS_READ, P.DELETIONS_RESTORE})
"""Held by every authenticated caller; of deletions, for those that the caller asked for."""

PLATFORM_WIDE = frozenset(
    {P.WORKSPACES_CREATE, P.AUDIT_READ, P.CLEANUP_READ, P.CLEANUP_CONTROL, P.DELETIONS_OPERATE}
)
"""Decided by the roles held in `system`."""

WITHOUT_WORKSPACE = AUTHENTICATED | PLATFORM_WIDE
"""About no workspace, and so decided before the handler runs; all others beside the data that they are about."""


def roles_permitting(permission: Permission) -> list[Role]:
    """The roles that permit it, weakest first."""
    return [role for role in Role if permission in TABLE[role]]
