"""The settings of a process and the execution profiles that they name."""

from app.config.addresses import is_loopback
from app.config.loading import load_settings
from app.config.settings import Settings
from app.config.values import is_protected

__all__ = ["Settings", "is_loopback", "is_protected", "load_settings"]
