"""The blob store on a filesystem that fails."""

import errno
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fsspec.implementations.local import LocalFileSystem

from app import clock
from app.storage.blob_store import BlobStore
from app.storage.purge import BytesRemain

OURS, FILESET = uuid4(), uuid4()


class Refusing(LocalFileSystem):
    """A disk on which some operations fail, as the kernel or a remote store would have them fail."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, OSError] = {}
        self.lies = False

    def rm_file(self, path: str) -> None:
        self._consult("rm", path)
        if not self.lies:
            super().rm_file(path)

    def rmdir(self, path: str) -> None:
        if not self.lies:
            super().rmdir(path)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        self._consult("ls", path)
        return super().ls(path, detail=detail, **kwargs)

    def _consult(self, act: str, path: str) -> None:
        for name, failure in self.failures.items():
            if name == f"{act} {Path(path).name}":
                raise failure


@pytest.fixture
def refusing() -> Refusing:
    return Refusing()


@pytest.fixture
def shaky(refusing: Refusing, tmp_path: Path) -> BlobStore:
    return BlobStore(refusing, str(tmp_path))


def put(store: BlobStore, path: str) -> None:
    store.publish(store.stage(OURS, FILESET, path, [b"x"]))


def paths(store: BlobStore) -> list[str]:
    return [file.path for file in store.files(OURS, FILESET)]


def test_a_file_that_refuses_does_not_protect_the_others(refusing: Refusing, shaky: BlobStore) -> None:
    for path in ("a/1", "b", "z/2"):
        put(shaky, path)
    refusing.failures["rm b"] = OSError("503 Service Unavailable")

    with pytest.raises(OSError, match="503"):
        shaky.purge_fileset(OURS, FILESET)
    assert paths(shaky) == ["b"]

    refusing.failures.clear()
    shaky.purge_fileset(OURS, FILESET)
    assert paths(shaky) == []


def test_a_directory_that_cannot_be_listed_is_not_taken_for_empty(
    refusing: Refusing, shaky: BlobStore
) -> None:
    put(shaky, "closed/secret")
    refusing.failures["ls closed"] = PermissionError(errno.EACCES, "Permission denied", "closed")

    for act in (shaky.purge_fileset, shaky.files):
        with pytest.raises(PermissionError):
            act(OURS, FILESET)
    with pytest.raises(PermissionError):
        shaky.purge_workspace(OURS)


def test_a_store_that_only_says_that_it_deleted_is_found_out(refusing: Refusing, shaky: BlobStore) -> None:
    put(shaky, "a")
    refusing.lies = True

    with pytest.raises(BytesRemain, match=rf"{FILESET}/a"):
        shaky.purge_fileset(OURS, FILESET)


def test_a_store_that_only_says_that_it_deleted_is_no_progress(refusing: Refusing, shaky: BlobStore) -> None:
    put(shaky, "a")
    put(shaky, "b")
    refusing.lies = True

    with pytest.raises(BytesRemain):
        shaky.purge_fileset(OURS, FILESET, within_s=0)


def test_a_purge_whose_time_is_over_before_anything_went_fails_with_what_refused(
    refusing: Refusing, shaky: BlobStore
) -> None:
    put(shaky, "a")
    put(shaky, "b")
    refusing.failures = {f"rm {name}": PermissionError(f"{name} refuses") for name in "ab"}

    with pytest.raises(PermissionError, match="refuses"):
        shaky.purge_fileset(OURS, FILESET, within_s=0)


@pytest.mark.parametrize(
    "failure",
    [
        PermissionError(errno.EACCES, "Permission denied", "{path}"),
        TimeoutError("no answer for {path}"),
        ConnectionError("{path}: reset"),
        OSError(errno.EIO, "I/O error", "{path}"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_failures_keep_their_class_and_name_no_path_of_the_server(
    refusing: Refusing, shaky: BlobStore, tmp_path: Path, failure: OSError
) -> None:
    put(shaky, "a")
    full = f"{tmp_path}/files/{OURS}/{FILESET}/a"
    failure.args = tuple(str(arg).format(path=full) if isinstance(arg, str) else arg for arg in failure.args)
    if failure.filename:
        failure.filename = full
    refusing.failures["rm a"] = failure

    with pytest.raises(type(failure)) as raised:
        shaky.purge_fileset(OURS, FILESET)

    assert str(tmp_path) not in str(raised.value)
    assert f"{FILESET}/a" in str(raised.value)
    assert raised.value.errno == failure.errno


def test_a_process_finds_the_faulty_store_on_its_path_and_meets_its_faults(tmp_path: Path) -> None:
    """The fault tests depend on this: workers get only a URL and a PYTHONPATH."""
    store = BlobStore.open(tmp_path.as_uri())
    put(store, "a")
    (tmp_path / "faults.json").write_text(json.dumps({str(FILESET): "503"}))
    purge = (
        "import sys; from uuid import UUID; from app.storage.blob_store import BlobStore;"
        "BlobStore.open(sys.argv[1]).purge_fileset(UUID(sys.argv[2]), UUID(sys.argv[3]))"
    )
    plug_in = Path(__file__).parent.parent / "support" / "faulty_store"
    root = Path(__file__).parents[2]

    done = subprocess.run(
        [sys.executable, "-c", purge, f"faulty://{tmp_path}", str(OURS), str(FILESET)],
        env={**os.environ, "PYTHONPATH": f"{plug_in}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "OSError: 503 Service Unavailable" in done.stderr
    assert paths(store) == ["a"]


def test_an_upload_that_cannot_be_collected_keeps_no_other_from_it(
    shaky: BlobStore, refusing: Refusing, tmp_path: Path
) -> None:
    for number in range(3):
        shaky.stage(OURS, FILESET, f"f{number}", [b"x"])
    staged = [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]
    refusing.failures[f"rm {staged[1].name}"] = PermissionError(errno.EPERM, "no", str(staged[1]))

    with pytest.raises(PermissionError) as raised:
        shaky.collect_staged_uploads(clock.now() + timedelta(hours=1))

    assert str(tmp_path) not in str(raised.value)
    assert [path for path in staged if path.exists()] == [staged[1]]
