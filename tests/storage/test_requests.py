"""How often a store is asked for the deletion of one fileset: each request takes as long as the store is far away."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from app.storage.blob_store import BlobStore
from tests.support.s3 import BUCKET, s3fs_uses, serving_s3
from tests.support.s3_proxy import Proxy, proxying

WORKSPACE = uuid4()


class Counting:
    """An identity that every store has; how often it was looked at."""

    verified = 0

    def verify(self, store: BlobStore, *, before_destruction: bool) -> None:
        self.verified += 1


def put(store: BlobStore) -> UUID:
    fileset = uuid4()
    store.publish(store.stage(WORKSPACE, fileset, "a", [b"x"]))
    return fileset


def delete(store: BlobStore, fileset: UUID) -> None:
    """As `app.cleanup.kinds.filesets` does."""
    assert store.remove_displaced(WORKSPACE, fileset) is None
    assert store.purge_fileset(WORKSPACE, fileset) is None


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with serving_s3(tmp_path) as server, proxying(server.endpoint) as proxy, s3fs_uses(proxy.endpoint):
        yield proxy


def test_a_bucket_is_asked_six_times(proxy: Proxy) -> None:
    store = BlobStore.open(f"s3://{BUCKET}")
    delete(store, put(store))
    fileset = put(store)
    proxy.requests.clear()

    delete(store, fileset)

    assert len(proxy.requests) == 6, proxy.requests


def test_whether_a_disk_is_ours_is_asked_before_and_after(tmp_path: Path) -> None:
    identity = Counting()
    store = BlobStore.open(tmp_path.as_uri(), identity=identity)
    fileset = put(store)
    identity.verified = 0

    delete(store, fileset)

    assert identity.verified == 2
