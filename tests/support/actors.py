"""Who does things in tests that are about something else."""

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal


def trusted(name: str) -> Actor:
    """Somebody who may do everything, as everybody may while authentication is off."""
    return Actor(Principal(name, is_platform_admin=True), Permission.WORKSPACES_READ)
