"""The directory that holds the runs of this installation on this host; anything outside it is not ours to judge."""

from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from app.config import Settings
from app.db import connect, session_scope, sessions_of
from app.runtime.lease import Runner
from app.services.workspaces import installation

_installations: dict[str, UUID] = {}
"""The installation by database URL, as first read by this process: a database never changes its identity."""


def runs_directory(settings: Settings) -> Path:
    """`<data_dir>/runs/<installation>@<host>`: hosts and installations may share a data directory.

    Asks the database once per process. Raises SQLAlchemy's errors.
    """
    host = Runner.of_this_process(settings).host
    # Short, because runs may make sockets below it, and the path of a socket has at most 107 bytes.
    ours = _installation(settings).hex[-12:]
    return (settings.data_dir / "runs" / f"{ours}@{quote(host, safe='')}").absolute()


def _installation(settings: Settings) -> UUID:
    # Read here, not passed in: the settings alone determine the directory, so no caller can name a wrong one.
    if settings.database_url not in _installations:
        engine = connect(settings)
        try:
            with session_scope(sessions_of(engine)) as session:
                _installations[settings.database_url] = installation(session)
        finally:
            engine.dispose()
    return _installations[settings.database_url]
