"""Deletions, as a client asks for them and follows them."""

from time import monotonic
from uuid import UUID

from bench.contents import WORKSPACES
from bench.product import Product

DELETIONS = "/apis/entities/v2/deletions"
_CONTROL = "/apis/entities/v2/cleanup-control"
ALL = ("worker", "maintenance", "runtime", "beat")
"""The processes beside web that a deletion may need."""


def pause(product: Product, *, paused: bool) -> None:
    """Pause or resume all destruction."""
    product.operator.call("PUT", _CONTROL, {"paused": paused})


def begin(product: Product, name: str) -> UUID:
    """Ask for the deletion of a workspace; the id of the deletion."""
    return UUID(product.ann.call("DELETE", f"{WORKSPACES}/{name}")["deletion_id"])


def wait_until_done(product: Product, deletion: UUID, *, until: float) -> None:
    """Return as soon as a deletion is DONE. Raises OutOfTime at `until`, a time of `monotonic()`."""
    product.wait_until(lambda: is_done(product, deletion), until=until, poll_s=0.002)


def is_done(product: Product, deletion: UUID) -> bool:
    """Whether a deletion is DONE."""
    return bool(product.query("SELECT 1 FROM deletions WHERE id = %s AND state = 'DONE'", deletion))


def seconds_to_done(product: Product, name: str, *, until: float) -> float:
    """Delete a workspace: from the request until the deletion is DONE. Raises OutOfTime at `until`."""
    began = monotonic()
    wait_until_done(product, begin(product, name), until=until)
    return monotonic() - began


def seconds_of_work(product: Product, deletion: UUID) -> float:
    """From the first slice of a deletion until it was DONE, by the database's clock."""
    ((seconds,),) = product.query(
        "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM deletions WHERE id = %s", deletion
    )
    return float(seconds)
