"""Filesets: the bytes, proof that none is left, then the row. After everything that could still write."""

from app.cleanup.kinds.base import Gone, ResourceKind
from app.context import Context
from app.models import Fileset


def _delete(context: Context, fileset: Fileset) -> Gone:
    context.store.purge_fileset(fileset.workspace_id, fileset.id)
    return Gone()


KIND = ResourceKind("filesets", Fileset, _delete)
