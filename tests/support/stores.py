"""The stores of stacks, on a disk or in a bucket, and their content as seen without the product."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.s3 import BUCKET, environment, serving_s3

STORES = ("disk", "bucket")


@dataclass(frozen=True)
class Store:
    """The settings of a store, and all its entries: also staged uploads, old versions, empty directories."""

    url: str
    paths: Callable[[], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def keeping(kind: str, directory: Path) -> Iterator[Store]:
    """An empty store of that kind, one of STORES."""
    if kind == "disk":
        root = directory / "kept"
        yield Store(root.as_uri(), lambda: sorted(str(path) for path in root.rglob("*")))
        return
    with serving_s3(directory) as s3:
        yield Store(f"s3://{BUCKET}/production", lambda: sorted(s3.keys()), environment(s3.endpoint))
