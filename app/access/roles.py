"""The roles of principals, and the workspaces in which they can be granted."""

from enum import StrEnum


class Role(StrEnum):
    """The roles in a workspace, weakest first."""

    VIEWER = "Viewer"  #: Reads everything in the workspace, its members included.
    JOB_RUNNER = "JobRunner"  #: Reports on jobs; for the programs that run them, not for people.
    EDITOR = "Editor"  #: As Viewer; also creates, changes and deletes the contents of the workspace.
    ADMIN = "Admin"  #: As Editor; also manages the members, and changes and deletes the workspace.
    WORKSPACE_CREATOR = "WorkspaceCreator"  #: Creates workspaces. Only in `system`.
    PLATFORM_ADMIN = "PlatformAdmin"  #: Has every permission in every workspace. Only in `system`.

    @classmethod
    def _missing_(cls, value: object) -> "Role | None":
        """The role that has another name in other releases of the clients: `Role("HelixAdmin")` is PlatformAdmin."""
        return cls(OTHER_NAMES[value]) if isinstance(value, str) and value in OTHER_NAMES else None


OTHER_NAMES = {"HelixAdmin": "PlatformAdmin"}
"""Names under which NeMo Helix knows roles. They are understood wherever a role is named, and never shown."""


PLATFORM = "system"
"""The built-in workspace whose role bindings concern the whole platform; only PlatformAdmins write to it."""

PLATFORM_ROLES = frozenset({Role.WORKSPACE_CREATOR, Role.PLATFORM_ADMIN})
"""Roles that concern the whole platform: they can be granted only in `system`."""

ROLES_IN_PLATFORM = PLATFORM_ROLES | {Role.VIEWER}
"""The only roles in `system`: an Editor or Admin there could write to the platform's own resources."""
