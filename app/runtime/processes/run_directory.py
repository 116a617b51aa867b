"""Where on this host the runs of this installation have their directories: what lies elsewhere is not ours to judge."""

from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from app.config import Settings
from app.db import connect, session_scope, sessions_of
from app.runtime.lease import Runner
from app.services.workspaces import installation

_installations: dict[str, UUID] = {}
"""By address of their database, as first seen by this process: a database keeps its identity for good."""


def runs_directory(settings: Settings) -> Path:
    """`<data_dir>/runs/<installation>@<host>`: hosts and installations may share a data directory.

    Asks the database once per process. Raises SQLAlchemy's errors.
    """
    host = Runner.of_this_process(settings).host
    # Short, for what a run makes below it: the path of a socket may have 107 bytes.
    ours = _installation(settings).hex[-12:]
    return (settings.data_dir / "runs" / f"{ours}@{quote(host, safe='')}").absolute()


def _installation(settings: Settings) -> UUID:
    # Looked up here, not handed down: whoever has the settings finds a directory, and nobody can find a wrong one.
    if settings.database_url not in _installations:
        engine = connect(settings)
        try:
            with session_scope(sessions_of(engine)) as session:
                _installations[settings.database_url] = installation(session)
        finally:
            engine.dispose()
    return _installations[settings.database_url]
