"""Projects: plain rows."""

from app.cleanup.kinds.base import RowsKind
from app.cleanup.kinds.rows import oldest_rows_of
from app.models import Project

KIND = RowsKind("projects", Project, oldest_rows_of(Project))
