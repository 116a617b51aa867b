"""Workspaces and what is in them."""

from uuid import UUID, uuid4

from bench.client import exchange
from bench.product import Product

WORKSPACES = "/apis/entities/v2/workspaces"
FILESETS = "/apis/files/v2/workspaces"
TYPE = "recipe"

ENTITIES = f"""
INSERT INTO entities (id, workspace_id, entity_type, name, data, db_version, created_at, created_by,
                      updated_at, updated_by)
SELECT (lpad(to_hex(%(began)s + i), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i || %(workspace)s::text), 4, 15))::uuid,
       %(workspace)s, '{TYPE}', 'd-' || i,
       jsonb_build_object('serial', i, 'score', (i::bigint * 7919) %% 1000003, 'owner', 'o-' || i %% 97,
                          'text', md5(i::text)),
       1, at, 'ann', at, 'ann'
FROM generate_series(%(first)s::int, %(last)s::int) AS i,
     LATERAL (SELECT to_timestamp((%(began)s + i) / 1000.0) AS at) AS age
"""
"""Inserts the entities `first` to `last` of a workspace, with ids of version 7: one each millisecond since `began`."""
BEGAN_MS = 1_704_067_200_000
"""The beginning of 2024."""
_AT_ONCE = 100_000


def make_workspaces(product: Product, names: list[str]) -> None:
    """Create workspaces of Ann's, over the API."""
    exchange(
        product.port,
        [product.ann.encode("POST", WORKSPACES, {"name": name}) for name in names],
        clients=min(4, len(names)),
    )


def make_workspace(product: Product, name: str) -> UUID:
    """Create one; returns its id."""
    return UUID(product.ann.call("POST", WORKSPACES, {"name": name})["id"])


def fill(product: Product, workspace: UUID, number: int) -> None:
    """Insert so many entities, committed a hundred thousand at a time."""
    for first in range(0, number, _AT_ONCE):
        values = {
            "workspace": workspace,
            "began": BEGAN_MS,
            "first": first,
            "last": min(number, first + _AT_ONCE) - 1,
        }
        product.database.execute(ENTITIES, values)


def make_ten_resources(product: Product, name: str) -> UUID:
    """A workspace with four entities, three projects, and three filesets with a file each."""
    workspace, ann = make_workspace(product, name), product.ann
    for number in range(4):
        ann.call("POST", f"{WORKSPACES}/{name}/entities/{TYPE}", {"name": f"e-{number}", "data": {}})
    for number in range(3):
        ann.call("POST", f"{WORKSPACES}/{name}/projects", {"name": f"p-{number}"})
        ann.call("POST", f"{FILESETS}/{name}/filesets", {"name": f"f-{number}"})
        ann.call("PUT", f"{FILESETS}/{name}/filesets/f-{number}/-/data.bin", bytes(1000))
    return workspace


def make_filesets(product: Product, workspace: UUID, number: int) -> list[UUID]:
    """Insert filesets without files; returns their ids."""
    ids = sorted(uuid4() for _ in range(number))
    product.query(
        "INSERT INTO filesets (id, workspace_id, name, description, project, purpose, created_at, created_by, "
        "updated_at, updated_by) SELECT id, %s, 'f-' || id, '', '', 'generic', now(), 'ann', now(), 'ann' "
        "FROM unnest(%s::uuid[]) AS id",
        workspace,
        ids,
    )
    return ids
