"""The contract of the blob store, on every filesystem that we promise."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import fsspec
import pytest

from app import clock
from app.storage.blob_store import BlobStore, ReceivedUpload, StoredFile
from app.storage.purge import BytesRemain
from tests.support.s3 import BUCKET, S3Server, s3fs_uses, serving_s3

OURS, NEIGHBOUR = uuid4(), uuid4()
FILESET, OTHER = uuid4(), uuid4()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("s3")) as server, s3fs_uses(server.endpoint):
        yield server


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> str:
    root = uuid4()
    urls = {"file": tmp_path.as_uri(), "memory": f"memory://{root}", "s3": f"s3://{BUCKET}/{root}"}
    return urls[request.param]


@pytest.fixture
def store(url: str) -> BlobStore:
    return BlobStore.open(url)


@pytest.fixture
def disk(tmp_path: Path) -> BlobStore:
    return BlobStore.open(tmp_path.as_uri())


def stage(
    store: BlobStore, content: bytes = b"x", *, workspace: UUID = OURS, path: str = "a"
) -> ReceivedUpload:
    return store.stage(workspace, FILESET, path, [content])


def put(
    store: BlobStore, path: str, content: bytes = b"x", *, workspace: UUID = OURS, fileset: UUID = FILESET
) -> None:
    store.publish(store.stage(workspace, fileset, path, [content]))


def test_an_upload_that_was_on_its_way_when_its_fileset_was_purged_can_never_be_published(
    store: BlobStore, url: str, s3: S3Server
) -> None:
    """A process that was paused meanwhile has lost its lock on the fileset without noticing."""
    late = stage(store, b"late")

    store.purge_fileset(OURS, FILESET)

    with pytest.raises(FileNotFoundError):
        store.publish(late)
    store.discard(late)
    assert [name for name in everything(url, s3) if name.startswith("/staging/") or str(OURS) in name] == []


def content(store: BlobStore, path: str) -> bytes:
    return b"".join(store.read(OURS, FILESET, path))


def everything(url: str, s3: S3Server) -> list[str]:
    """All files, directories and staged uploads, for tests that nothing stays behind."""
    if url.startswith("s3://"):
        return s3.keys(url.removeprefix(f"s3://{BUCKET}/"))
    filesystem, root = fsspec.core.url_to_fs(url)
    return [name.removeprefix(root) for name in filesystem.find(root, withdirs=True) if name != root]


def paths(store: BlobStore, path: str = "") -> list[str]:
    return [file.path for file in store.files(OURS, FILESET, path)]


# --- Uploads


def test_a_published_upload_can_be_read_back(store: BlobStore) -> None:
    staged = store.stage(OURS, FILESET, "a/b.txt", [b"one ", b"two"])

    assert store.publish(staged) == StoredFile("a/b.txt", 7)
    assert content(store, "a/b.txt") == b"one two"
    assert store.stat(OURS, FILESET, "a/b.txt") == StoredFile("a/b.txt", 7)


def test_a_staged_upload_is_not_visible(store: BlobStore) -> None:
    stage(store)

    assert store.files(OURS, FILESET) == []
    assert store.size(OURS) == 0


def test_a_new_upload_replaces_the_old_one_at_once(store: BlobStore) -> None:
    put(store, "a", b"old and longer")
    reading = store.read(OURS, FILESET, "a")
    put(store, "a", b"new")

    assert content(store, "a") == b"new"
    try:
        downloaded = b"".join(reading)
    except OSError:  # In a bucket the old version is gone; a download that breaks off is noticed.
        downloaded = b"old and longer"
    assert downloaded == b"old and longer", "a download must not mix two versions"


def test_an_upload_that_breaks_off_leaves_nothing(store: BlobStore, url: str, s3: S3Server) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.stage(OURS, FILESET, "a", broken())

    assert [name for name in everything(url, s3) if str(FILESET) in name or "staging/" in name] == []


def test_a_discarded_upload_leaves_nothing_and_a_published_one_stays(
    store: BlobStore, url: str, s3: S3Server
) -> None:
    dropped, kept = stage(store), stage(store, b"y", workspace=NEIGHBOUR, path="kept")
    store.publish(kept)

    store.discard(dropped)
    store.discard(dropped)
    store.discard(kept)

    assert [name for name in everything(url, s3) if name.startswith("/staging/") or str(OURS) in name] == []
    assert store.files(NEIGHBOUR, FILESET) == [StoredFile("kept", 1)]


def test_an_upload_that_was_collected_cannot_be_published(store: BlobStore, url: str, s3: S3Server) -> None:
    staged = stage(store, b"late", path="a/late")
    store.purge_workspace(OURS)

    with pytest.raises(FileNotFoundError):
        store.publish(staged)

    assert not any(str(OURS) in name for name in everything(url, s3))


def test_a_file_cannot_take_the_place_of_a_directory(store: BlobStore) -> None:
    put(store, "a/b")

    with pytest.raises(IsADirectoryError):
        put(store, "a")

    assert paths(store) == ["a/b"]


@pytest.mark.parametrize("path", ["a/b", "a/b/c"])
def test_a_directory_cannot_take_the_place_of_a_file(store: BlobStore, path: str) -> None:
    put(store, "a")

    with pytest.raises(NotADirectoryError):
        put(store, path)

    assert paths(store) == ["a"]


def test_uploads_and_removals_beside_each_other_all_succeed(disk: BlobStore) -> None:
    """A removal prunes the directory that an upload is about to use."""
    failures = []

    def churn(name: str) -> None:
        try:
            for _ in range(100):
                put(disk, f"deep/er/{name}")
                disk.remove(OURS, FILESET, f"deep/er/{name}")
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_only_abandoned_uploads_are_collected(store: BlobStore) -> None:
    abandoned = stage(store, path="late")
    put(store, "kept")

    assert store.collect_staged_uploads(clock.now() - timedelta(hours=1)) == (0, True)
    assert store.collect_staged_uploads(clock.now() + timedelta(hours=1)) == (1, True)

    with pytest.raises(FileNotFoundError):
        store.publish(abandoned)
    assert paths(store) == ["kept"]


# --- Files


def test_files_are_listed_recursively_in_order(store: BlobStore) -> None:
    for path in ("b", "a/c", "a/b/d", "ab"):
        put(store, path)
    put(store, "elsewhere", fileset=OTHER)

    assert paths(store) == ["a/b/d", "a/c", "ab", "b"]


def test_the_order_is_that_of_whole_paths_and_not_of_one_directory_after_the_other(store: BlobStore) -> None:
    for path in ("a/b/c", "a-", "a.b/x", "a/b-", "a0", "a/b/d", "\u00e9", "z"):
        put(store, path)

    assert (
        paths(store) == sorted(paths(store)) == ["a-", "a.b/x", "a/b-", "a/b/c", "a/b/d", "a0", "z", "\u00e9"]
    )


def test_a_listed_path_is_a_file_or_directory_and_not_the_start_of_a_name(store: BlobStore) -> None:
    for path in ("a/c", "a/b/d", "ab"):
        put(store, path)

    assert paths(store, "a") == ["a/b/d", "a/c"]
    assert paths(store, "ab") == ["ab"]
    assert paths(store, "a/c") == ["a/c"]
    assert paths(store, "missing") == paths(store, "ab/c") == []


@pytest.mark.parametrize("path", ["missing", "a", "a/b/c"])
def test_what_is_not_a_file_is_not_found(store: BlobStore, path: str) -> None:
    put(store, "a/b")

    for act in (store.stat, store.read, store.remove):
        with pytest.raises(FileNotFoundError):
            act(OURS, FILESET, path)
    assert paths(store) == ["a/b"]


def test_a_reading_can_be_limited(store: BlobStore) -> None:
    put(store, "digits", b"0123456789")

    def limited(start: int, stop: int) -> bytes:
        reading = store.read(OURS, FILESET, "digits")
        reading.limit(start, stop)
        return b"".join(reading)

    assert [limited(2, 5), limited(8, 99), limited(9, 10), limited(10, 10)] == [b"234", b"89", b"9", b""]


def test_a_large_file_arrives_whole_in_chunks(store: BlobStore) -> None:
    block = bytes(range(256)) * 4096
    store.publish(store.stage(OURS, FILESET, "large", (block for _ in range(23))))

    chunks = list(store.read(OURS, FILESET, "large"))

    assert b"".join(chunks) == block * 23
    assert max(map(len, chunks)) <= 4 * len(block)


def test_removing_a_file_removes_the_directories_it_leaves_empty(
    store: BlobStore, url: str, s3: S3Server
) -> None:
    put(store, "a/b/gone", b"12345")
    put(store, "a/kept")

    assert store.remove(OURS, FILESET, "a/b/gone") == StoredFile("a/b/gone", 5)

    assert paths(store) == ["a/kept"]
    assert not any(name.endswith("/b") for name in everything(url, s3))


# --- Whole filesets and workspaces


def test_purging_a_fileset_leaves_nothing_of_it_and_all_of_its_neighbours(
    store: BlobStore, url: str, s3: S3Server
) -> None:
    for path in ("a", "b/c", "b/d/e"):
        put(store, path)
    put(store, "a", fileset=OTHER)
    put(store, "a", workspace=NEIGHBOUR)

    store.purge_fileset(OURS, FILESET)
    store.purge_fileset(OURS, FILESET)

    assert not any(f"{OURS}/{FILESET}" in name for name in everything(url, s3))
    assert len(store.files(OURS, OTHER)) == len(store.files(NEIGHBOUR, FILESET)) == 1


def test_a_purge_yields_at_its_deadline_and_the_next_continues_from_there(
    store: BlobStore, url: str, s3: S3Server
) -> None:
    for path in ("a", "b/c", "b/d", "e/f/g"):
        put(store, path)
    stage(store, path="late")

    left = [len(paths(store))]
    while partial := store.purge_fileset(OURS, FILESET, within_s=0):
        assert partial.removed > 0
        left.append(len(paths(store)))

    assert left[-1] == 0
    assert left == sorted(left, reverse=True), "what went did not come back"
    assert len(left) > 2
    assert [name for name in everything(url, s3) if str(FILESET) in name] == []


def test_directories_go_with_what_was_in_them_so_that_the_next_purge_need_not_look_again(
    disk: BlobStore, tmp_path: Path
) -> None:
    for number in range(5):
        put(disk, f"{number}/a")

    for _ in range(4):  # a file, its directory, a file, its directory
        assert disk.purge_fileset(OURS, FILESET, within_s=0)

    assert len(list((tmp_path / "files" / str(OURS) / str(FILESET)).iterdir())) == 3


def test_purging_a_workspace_removes_its_uploads_and_directories(
    store: BlobStore, url: str, s3: S3Server
) -> None:
    put(store, "a/b")
    put(store, "a", workspace=NEIGHBOUR)
    stage(store, b"on its way", path="late")
    store.purge_fileset(OURS, FILESET)

    store.purge_workspace(OURS)
    store.purge_workspace(OURS)

    assert not any(str(OURS) in name for name in everything(url, s3))
    assert len(store.files(NEIGHBOUR, FILESET)) == 1


def test_purging_a_workspace_keeps_retained_filesets(store: BlobStore) -> None:
    put(store, "retained")
    put(store, "gone", fileset=OTHER)
    store.purge_fileset(OURS, OTHER)

    store.purge_workspace(OURS, keep={FILESET})

    assert paths(store) == ["retained"]
    assert store.workspace_ids() >= {OURS}


def test_purging_a_workspace_does_not_touch_uploads_to_retained_filesets(store: BlobStore) -> None:
    retained = stage(store, b"to what is retained", path="late")
    gone = store.stage(OURS, OTHER, "a", [b"to what is gone"])

    store.purge_workspace(OURS, keep={FILESET})

    with pytest.raises(FileNotFoundError):
        store.publish(gone)
    store.publish(retained)
    assert paths(store) == ["late"]


def test_bytes_that_nobody_purged_stop_the_purge_of_the_workspace(store: BlobStore) -> None:
    put(store, "forgotten")

    with pytest.raises(BytesRemain, match=str(FILESET)):
        store.purge_workspace(OURS, keep={OTHER})

    assert paths(store) == ["forgotten"]


def test_the_size_of_a_workspace_is_the_sum_of_its_files(store: BlobStore) -> None:
    put(store, "a/b", b"12345")
    put(store, "c", b"123", fileset=OTHER)
    put(store, "d", b"1", workspace=NEIGHBOUR)

    assert (store.size(OURS), store.size(NEIGHBOUR), store.size(uuid4())) == (8, 1, 0)


def test_the_workspaces_with_anything_stored_are_known(store: BlobStore) -> None:
    put(store, "a")
    staged_only = uuid4()
    stage(store, workspace=staged_only)

    assert store.workspace_ids() == {OURS, staged_only}


def test_a_symbolic_link_is_removed_and_not_what_it_points_to(disk: BlobStore, tmp_path: Path) -> None:
    put(disk, "a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    link = tmp_path / "files" / str(OURS) / str(FILESET) / "link"
    link.symlink_to(outside)

    disk.purge_fileset(OURS, FILESET)

    assert (outside / "precious").exists()
    assert not link.is_symlink()
