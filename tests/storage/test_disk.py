"""A disk on which a job has planted links: nothing outside the store is read, written or removed."""

import grp
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.storage.blob_store import BlobStore
from app.storage.disk import Disk

WORKSPACE, FILESET = uuid4(), uuid4()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def store(root: Path) -> BlobStore:
    return BlobStore.open(root.as_uri())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that does not belong to the store."""
    directory = tmp_path / "precious"
    (directory / "sub").mkdir(parents=True)
    (directory / "keep").write_text("precious")
    (directory / "sub" / "keep").write_text("precious")
    return directory


def everything(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()
    }


def put(store: BlobStore, path: str, content: bytes = b"ours") -> None:
    store.publish(store.stage(WORKSPACE, FILESET, path, [content]))


def place(root: Path, *below: str) -> Path:
    directory = root.joinpath("files", str(WORKSPACE), *below)
    directory.parent.mkdir(parents=True, exist_ok=True)
    return directory


USES: dict[str, Callable[[BlobStore, str], object]] = {
    "read": lambda store, path: store.read(WORKSPACE, FILESET, path),
    "stat": lambda store, path: store.stat(WORKSPACE, FILESET, path),
    "remove": lambda store, path: store.remove(WORKSPACE, FILESET, path),
}


@pytest.mark.parametrize("path", ["file", "directory/keep", "directory/sub/keep"])
@pytest.mark.parametrize("use", USES)
def test_a_link_is_not_followed(store: BlobStore, root: Path, outside: Path, use: str, path: str) -> None:
    put(store, "ours")
    before = everything(outside)
    place(root, str(FILESET), "file").symlink_to(outside / "keep")
    place(root, str(FILESET), "directory").symlink_to(outside)

    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        USES[use](store, path)

    assert everything(outside) == before
    assert [file.path for file in store.each_file(WORKSPACE, FILESET)] == ["ours"]


def test_nothing_is_written_through_a_link(store: BlobStore, root: Path, outside: Path) -> None:
    put(store, "ours")
    before = everything(outside)
    place(root, str(FILESET), "directory").symlink_to(outside)
    place(root, str(FILESET), "file").symlink_to(outside / "keep")

    with pytest.raises(NotADirectoryError):
        put(store, "directory/planted")
    put(store, "file")  # replaces the link

    assert everything(outside) == before
    assert store.stat(WORKSPACE, FILESET, "file").size == 4


def test_a_pipe_is_no_file_and_is_not_waited_for(store: BlobStore, root: Path) -> None:
    put(store, "ours")
    os.mkfifo(place(root, str(FILESET), "pipe"))

    with pytest.raises(FileNotFoundError):
        store.read(WORKSPACE, FILESET, "pipe")


@pytest.mark.parametrize("level", ["fileset", "workspace"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_stands_in_the_place_of_a_directory_is_removed_as_such(
    store: BlobStore, root: Path, outside: Path, level: str, kind: str
) -> None:
    before = everything(outside)
    fileset = FILESET if level == "fileset" else None
    entry = place(root, str(FILESET)) if fileset else root / "files" / str(WORKSPACE)
    entry.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        entry.symlink_to(outside)
    else:
        entry.write_text("no directory")

    assert store.remove_displaced(WORKSPACE, fileset) == (
        f"a link to {outside}" if kind == "link" else "a file"
    )
    store.purge_fileset(WORKSPACE, FILESET)
    store.purge_workspace(WORKSPACE)

    assert not os.path.lexists(entry)
    assert everything(outside) == before
    assert store.workspace_ids() == set()


@pytest.mark.parametrize("level", ["fileset", "workspace"])
def test_a_purge_of_a_fileset_follows_no_link(
    store: BlobStore, root: Path, outside: Path, level: str
) -> None:
    before = everything(outside)
    if level == "fileset":
        place(root, str(FILESET)).symlink_to(outside)
    else:
        (outside / str(FILESET)).mkdir()
        place(root).symlink_to(outside)

    assert store.purge_fileset(WORKSPACE, FILESET) is None

    assert everything(outside) == before


def test_a_directory_that_becomes_a_link_during_a_purge_is_not_followed(
    store: BlobStore, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge has listed it as a directory, and a job that still runs replaces it then."""
    put(store, "directory/ours")
    before = everything(outside)
    directory = place(root, str(FILESET), "directory")
    scan = Disk.scan

    def scan_and_replace(disk: Disk, listed: str) -> Iterator[dict[str, Any]]:
        entries = list(scan(disk, listed))
        if listed == str(directory.parent):
            directory.rename(root / "aside")
            directory.symlink_to(outside)
        return iter(entries)

    monkeypatch.setattr(Disk, "scan", scan_and_replace)
    with pytest.raises(OSError, match="Not a directory"):
        store.purge_fileset(WORKSPACE, FILESET)

    assert everything(outside) == before


def test_a_link_at_and_above_the_root_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "blobs").symlink_to(tmp_path / "volume")
    store = BlobStore.open((tmp_path / "blobs").as_uri())

    put(store, "a/b")

    assert store.stat(WORKSPACE, FILESET, "a/b").size == 4
    assert (tmp_path / "volume" / "files").is_dir()


def test_an_error_names_the_whole_path_below_the_workspace(store: BlobStore, root: Path) -> None:
    put(store, "directory/ours")

    with pytest.raises(FileNotFoundError) as error:
        store.read(WORKSPACE, FILESET, "directory/missing")

    assert error.value.filename == f"{FILESET}/directory/missing"


# --- durability -------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[tuple[str, str]]:
    """What is done to the disk, in order; a path is relative to the root."""
    done: list[tuple[str, str]] = []

    def path_of(descriptor: int) -> str:
        return os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), root)

    def note(name: str, describe: Callable[..., str]) -> None:
        act = getattr(os, name)

        def noting(*arguments: object, **keywords: object) -> object:
            done.append((name, describe(*arguments, **keywords)))
            return act(*arguments, **keywords)

        monkeypatch.setattr(os, name, noting)

    note("fsync", path_of)
    note("replace", lambda _old, new, *, dst_dir_fd, **_: f"{path_of(dst_dir_fd)}/{new}")
    note("unlink", lambda name, *, dir_fd: f"{path_of(dir_fd)}/{name}")
    note("rmdir", lambda name, *, dir_fd: f"{path_of(dir_fd)}/{name}")
    return done


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the paths of descriptors are read from /proc")
class TestDurability:
    def test_the_names_of_an_upload_are_synced_after_it_has_them(
        self, store: BlobStore, calls: list[tuple[str, str]]
    ) -> None:
        put(store, "a/b")

        fileset = f"files/{WORKSPACE}/{FILESET}"
        named = calls.index(("replace", f"{fileset}/a/b"))
        synced = [path for act, path in calls[named:] if act == "fsync"]
        assert {".", "files", f"files/{WORKSPACE}", fileset, f"{fileset}/a"} <= set(synced)

    def test_a_removed_file_is_synced(self, store: BlobStore, calls: list[tuple[str, str]]) -> None:
        put(store, "a")
        put(store, "b")
        calls.clear()

        store.remove(WORKSPACE, FILESET, "a")

        fileset = f"files/{WORKSPACE}/{FILESET}"
        assert calls.index(("fsync", fileset)) > calls.index(("unlink", f"{fileset}/a"))

    def test_a_purge_is_synced_when_it_says_so(self, store: BlobStore, calls: list[tuple[str, str]]) -> None:
        put(store, "a/b")
        calls.clear()

        store.purge_fileset(WORKSPACE, FILESET)
        removed = calls.index(("rmdir", f"files/{WORKSPACE}/{FILESET}"))
        assert ("fsync", f"files/{WORKSPACE}") in calls[removed:]

        calls.clear()
        store.purge_workspace(WORKSPACE)
        removed = calls.index(("rmdir", f"files/{WORKSPACE}"))
        assert ("fsync", "files") in calls[removed:]


# --- permissions ------------------------------------------------------------------------------------------


def modes(root: Path) -> dict[str, str]:
    everything = list(root.rglob("*"))
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in everything}


def test_what_is_stored_is_for_its_owner_alone(store: BlobStore, root: Path) -> None:
    put(store, "directory/file")

    assert modes(root) == {
        name: "0o600" if name == "file" else "0o700"
        for name in ("files", "staging", str(WORKSPACE), str(FILESET), "directory", "file")
        if name in modes(root)
    }
    assert modes(root)["file"] == "0o600"


def test_a_group_may_read_where_one_is_set(root: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    store = BlobStore.open(root.as_uri(), group=group)

    put(store, "directory/file")

    assert {modes(root)["file"], modes(root)["directory"]} == {"0o640", "0o2750"}
