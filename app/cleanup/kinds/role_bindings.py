"""Role bindings: powerless since the DELETE, kept to the end for audit and restore."""

from app.cleanup.kinds.base import RowsKind
from app.cleanup.kinds.rows import oldest_rows_of
from app.models import RoleBinding

KIND = RowsKind("role_bindings", RoleBinding, oldest_rows_of(RoleBinding))
