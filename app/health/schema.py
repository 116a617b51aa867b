"""Whether the database has the schema that this release needs."""

from functools import cache

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.distribution import schema_revisions

_REMEDY = "run `workspaces db upgrade`"


def why_too_old(session: Session) -> str | None:
    """Why this release cannot work with the schema, or None. A newer one, or one nobody here knows, is taken as good.

    Otherwise nothing of this release would be ready between the upgrade of the schema and its own.
    """
    needed, older = schema_revisions_known()
    if not session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
        return f"is missing; {_REMEDY}"
    revisions = set(session.scalars(text("SELECT version_num FROM alembic_version")))
    if revisions <= older:
        found = ", ".join(sorted(revisions)) or "none"
        return f"is older than this release: revision {found} instead of {needed}; {_REMEDY}"
    return None


@cache
def schema_revisions_known() -> tuple[str, frozenset[str]]:
    """The revision that this release needs, and all before it."""
    newest, *older = schema_revisions()
    return newest, frozenset(older)
