"""Filesets: the bytes, proof that none is left, then the row. After everything that could still write."""

from app.cleanup.kinds.base import Deleted, InProgress, ResourceKind
from app.context import Context
from app.models import Fileset


def _delete(context: Context, fileset: Fileset) -> Deleted | InProgress:
    # Half of what there is: listing comes before it, and the last request may be answered late.
    within_s = context.settings.item_timeout_seconds / 2
    displaced = context.store.remove_displaced(fileset.workspace_id, fileset.id)
    unfinished = context.store.purge_fileset(fileset.workspace_id, fileset.id, within_s=within_s)
    return InProgress(f"{unfinished.removed} files") if unfinished else Deleted(displaced)


KIND = ResourceKind("filesets", Fileset, _delete, is_parallel=True)
