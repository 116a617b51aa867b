"""Files with keys: who may read them, and what is no such file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config.private_file import read_private_file

IS_ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not IS_ROOT, reason="only root has files of its own")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of somebody who is not root."""
    file = tmp_path / "keys"
    file.write_bytes(b"key")
    file.chmod(0o600)
    if IS_ROOT:
        os.chown(file, 1234, 1234)
    return file


def of_root(file: Path) -> Path:
    os.chown(file, 0, 1234)
    return file


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_its_owner_can_read_is_read(file: Path, mode: int) -> None:
    file.chmod(mode)

    assert read_private_file(str(file)) == b"key"


@root_only
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440])
def test_the_group_may_read_a_file_of_root(file: Path, mode: int) -> None:
    """So Kubernetes mounts a Secret."""
    of_root(file).chmod(mode)

    assert read_private_file(str(file)) == b"key"


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602])
def test_a_file_that_others_can_read_or_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)

    with pytest.raises(
        ValueError, match=rf"others may read or write '{file}' \(mode {mode:04o}\): chmod 600"
    ):
        read_private_file(str(file))


@root_only
@pytest.mark.parametrize("mode", [0o660, 0o644])
def test_a_file_of_root_that_its_group_can_write_or_all_can_read_is_refused(file: Path, mode: int) -> None:
    of_root(file).chmod(mode)

    with pytest.raises(ValueError, match="chmod 600"):
        read_private_file(str(file))


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "cannot be read: No such file"),
    "a directory": (Path.mkdir, "cannot be read: Is a directory"),
    "a pipe": (lambda file: os.mkfifo(file, 0o600), "is no file: name the one with the keys"),
    "a device": (lambda file: file.symlink_to("/dev/zero"), "is no file: name the one with the keys"),
}


@pytest.mark.parametrize(("make", "reason"), NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_with_keys_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    file = tmp_path / "keys"
    make(file)

    with pytest.raises(ValueError, match=f"^'{file}' {reason}"):
        read_private_file(str(file))


def test_a_file_is_read_in_full_or_refused(file: Path) -> None:
    file.write_bytes(b"x" * 64 * 1024)
    assert len(read_private_file(str(file))) == 64 * 1024

    file.write_bytes(b"x" * (64 * 1024 + 1))
    with pytest.raises(ValueError, match="is longer than 64 KiB"):
        read_private_file(str(file))
