"""Whether jobs and deployments may start processes beside the runtime worker, and the setting that keeps them off."""

import os
import sys
from collections.abc import Mapping

from app.config.addresses import is_loopback, listens_beyond_loopback

CAN_END_PROCESSES = sys.platform == "linux"
"""prctl and /proc see to it that nothing a job has started outlives it; no other system has both."""

_PROVIDER = "WORKSPACES_SUBPROCESS_PROVIDER"


def why_no_processes(provider: str, signs: Mapping[str, bool]) -> str | None:
    """Why no job or deployment may start processes, with the setting that decides; None if they may.

    `signs` say in words what shows that callers may be others than the users of this machine, and whether it is so.
    """
    if not CAN_END_PROCESSES:
        return "what ends the processes of a job needs Linux"
    if provider == "on":
        return None
    if provider == "off":
        return f"{_PROVIDER} is off"
    if sign := next((sign for sign, is_there in signs.items() if is_there), None) or _exposure():
        return (
            f"{_PROVIDER} is auto, which starts none where others than the users of this machine may call: {sign}; "
            "if all Editors are trusted with the host of the runtime worker, its operator may set it to on"
        )
    return None


def told_to_users(provider: str) -> str:
    """The setting that keeps processes off, without what it tells of the server."""
    return f"{_PROVIDER} is '{provider}', which keeps processes off this server"


def _exposure() -> str | None:
    if not is_loopback(os.environ.get("HOST") or "127.0.0.1"):
        return "HOST is no loopback address"
    return "the server listens beyond loopback" if listens_beyond_loopback() else None
