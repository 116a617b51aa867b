"""The roles a principal can hold. What each role permits route by route is decided in `authorize`."""

from enum import StrEnum


class Role(StrEnum):
    """What somebody may be in a workspace, weakest first."""

    VIEWER = "Viewer"  #: Reads everything in the workspace, its members included.
    JOB_RUNNER = "JobRunner"  #: Writes the logs of jobs; given to what runs them, not to people.
    EDITOR = "Editor"  #: As Viewer; makes, changes and deletes what is in the workspace.
    ADMIN = "Admin"  #: As Editor; manages the members, and changes and deletes the workspace itself.
    WORKSPACE_CREATOR = "WorkspaceCreator"  #: Makes workspaces. Means something in `system` alone.
    PLATFORM_ADMIN = "PlatformAdmin"  #: Everything, in every workspace. Means something in `system` alone.


PLATFORM_ROLES = frozenset({Role.WORKSPACE_CREATOR, Role.PLATFORM_ADMIN})
"""Roles about the platform as a whole: they can only be held in `system`."""
