"""The roles a principal can hold, and in which workspaces they mean something."""

from enum import StrEnum


class Role(StrEnum):
    """What somebody may be in a workspace, weakest first; what each permits is in `permissions`."""

    VIEWER = "Viewer"  #: Reads everything in the workspace, its members included.
    JOB_RUNNER = "JobRunner"  #: Reports on jobs; given to what runs them, not to people.
    EDITOR = "Editor"  #: As Viewer; makes, changes and deletes what is in the workspace.
    ADMIN = "Admin"  #: As Editor; manages the members, and changes and deletes the workspace itself.
    WORKSPACE_CREATOR = "WorkspaceCreator"  #: Makes workspaces. Means something in `system` alone.
    PLATFORM_ADMIN = "PlatformAdmin"  #: Everything, in every workspace. Means something in `system` alone.


PLATFORM = "system"
"""The built-in workspace whose bindings speak of the platform as a whole; only PlatformAdmins write to it."""

PLATFORM_ROLES = frozenset({Role.WORKSPACE_CREATOR, Role.PLATFORM_ADMIN})
"""Roles about the platform as a whole: they can only be held in `system`."""

ROLES_IN_PLATFORM = PLATFORM_ROLES | {Role.VIEWER}
"""The only roles that count in `system`: an Editor or Admin there would write to what is the platform's."""
