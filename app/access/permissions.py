"""What can be permitted. Each route names one; who holds it is decided in `authorize`."""

from enum import StrEnum


class Permission(StrEnum):
    """`resource:action`, alphabetical."""

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
    JOBS_WRITE = "jobs:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    METRICS_READ = "metrics:read"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    PUBLIC = "public:read"
    ROLE_BINDINGS_READ = "role_bindings:read"
    ROLE_BINDINGS_WRITE = "role_bindings:write"
    WORKSPACES_CREATE = "workspaces:create"
    WORKSPACES_DELETE = "workspaces:delete"
    WORKSPACES_READ = "workspaces:read"
    WORKSPACES_UPDATE = "workspaces:update"
