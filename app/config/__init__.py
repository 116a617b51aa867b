"""The settings of a process and the execution profiles that they name."""

from app.config.settings import Settings, is_loopback, is_protected, load_settings

__all__ = ["Settings", "is_loopback", "is_protected", "load_settings"]
