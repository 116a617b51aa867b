"""Secrets: plain rows."""

from app.cleanup.kinds.base import RowsKind
from app.cleanup.kinds.rows import oldest_rows_of
from app.models import Secret

KIND = RowsKind("secrets", Secret, oldest_rows_of(Secret))
