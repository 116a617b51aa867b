"""What travels with the code, in a checkout and in an installed package: Procfile, `alembic.ini`, migrations."""

import os
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

_INSTALLED = Path(__file__).parent / "installed"  # as setup.py lays it
FILES = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parent.parent


def upgrade_database() -> None:
    """Bring the database that the settings name to the newest schema."""
    command.upgrade(Config(FILES / "alembic.ini"), "head")


def schema_revisions() -> list[str]:
    """The revisions of the schema that this release knows, the newest first."""
    scripts = ScriptDirectory.from_config(Config(FILES / "alembic.ini"))
    return [script.revision for script in scripts.walk_revisions()]


def become(process: str) -> NoReturn:
    """Turn this process into that one of the Procfile, of the programs that are installed beside this one."""
    lines = (FILES / "Procfile").read_text().splitlines()
    [command_line] = [line.removeprefix(f"{process}:") for line in lines if line.startswith(f"{process}:")]
    beside = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    path = os.pathsep.join(dict.fromkeys([*beside, os.environ.get("PATH", os.defpath)]))
    os.execve("/bin/sh", ["sh", "-c", command_line], {**os.environ, "PATH": path})  # noqa: S606 -- as `make up` does
