"""Filesets: the bytes, proof that none is left, then the row. After everything that could still write."""

from app.cleanup.kinds.base import Gone, Partly, ResourceKind
from app.context import Context
from app.models import Fileset


def _delete(context: Context, fileset: Fileset) -> Gone | Partly:
    # Half of what there is: listing comes before it, and the last request may be answered late.
    within_s = context.settings.item_timeout_seconds / 2
    unfinished = context.store.purge_fileset(fileset.workspace_id, fileset.id, within_s=within_s)
    return Partly(f"{unfinished.removed} files") if unfinished else Gone()


KIND = ResourceKind("filesets", Fileset, _delete)
