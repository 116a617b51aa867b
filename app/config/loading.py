"""Reads the settings of a process, and refuses to start with one line that names the variable."""

import os
import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.config.settings import Settings

_OF_JOBS = {"WORKSPACES_RESULTS_DIR", "WORKSPACES_RUN"}
"""Variables of jobs and deployments: a command that one of them runs finds them beside the settings."""
_OF_COMMANDS = {"WORKSPACES_SERVER", "WORKSPACES_TOKEN", "WORKSPACES_TOKEN_FILE"}
"""Variables by which the command line finds a server and its token; no process of the product reads them."""
_OF_CLUSTERS = re.compile(
    r"WORKSPACES_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)"
)
"""Variables that Kubernetes gives to every pod beside a service whose name begins with `workspaces`."""


@cache
def load_settings() -> Settings:
    """The settings of this process, read once.

    Exits with status 2 and one line that names the variable, if its value is wrong or nothing reads it.
    """
    try:
        settings = Settings()
        message = _unread(os.environ)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        message = f"{_variable(str(first['loc'][0]))}: {problem}" if first["loc"] else _in_variables(problem)
    except SettingsError as error:
        # The message of pydantic-settings names the field; its cause says why the list could not be parsed.
        [field] = re.findall(r'field "(\w+)"', str(error))
        message = f"{_variable(field)}: must be JSON, such as a list in brackets: {error.__cause__}"
    if message:
        print(message, file=sys.stderr)  # noqa: T201 -- logging is not set up yet
        raise SystemExit(2)
    return settings


def _variable(field: str) -> str:
    return f"WORKSPACES_{field.upper()}"


def _in_variables(text: str) -> str:
    """A rule about fields, with the names of their variables."""
    return re.sub(rf"\b({'|'.join(Settings.model_fields)})\b", lambda field: _variable(field[0]), text)


def _unread(environment: Mapping[str, str]) -> str | None:
    """The complaint about the first variable of ours that nothing reads: a mistyped one would change nothing."""
    fields = set(Settings.model_fields) | {name.removeprefix("WORKSPACES_").lower() for name in _OF_COMMANDS}
    known = {_variable(field) for field in fields} | _OF_JOBS
    for name, value in sorted(environment.items()):
        if not name.startswith("WORKSPACES_") or name.upper() in known:
            continue
        if _OF_CLUSTERS.fullmatch(name) or (name.endswith("_PORT") and "://" in value):
            continue
        # Without the prefix, which all of them share.
        nearest = get_close_matches(name.removeprefix("WORKSPACES_").lower(), fields, n=1)
        remedy = f"did you mean {_variable(nearest[0])}?" if nearest else "see .env.example for all settings."
        return f"{name}: there is no such setting; {remedy}"
    return None
