"""Files with keys: read only if nobody else can read them."""

import os
import stat

_MOST_BYTES = 64 * 1024


def read_private_file(file: str) -> bytes:
    """The content of a file with keys. Raises ValueError with the remedy.

    Nobody but its owner may read it, or it belongs to root and its group may: so Kubernetes mounts a Secret.
    """
    try:
        with open(file, "rb", opener=_open_without_waiting) as opened:
            # Of the opened file: another one may have its name a moment later.
            _require_private(file, os.fstat(opened.fileno()))
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"'{file}' cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise ValueError(f"'{file}' is longer than {_MOST_BYTES // 1024} KiB: name the file with the keys")
    return content


def _open_without_waiting(file: str, flags: int) -> int:
    # Otherwise a pipe to which nobody writes would hang the start.
    return os.open(file, flags | os.O_NONBLOCK)


def _require_private(file: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"'{file}' is no file: name the one with the keys")
    of_others = 0o037 if found.st_uid == 0 else 0o077
    if found.st_mode & of_others:
        mode = stat.S_IMODE(found.st_mode)
        raise ValueError(f"others may read or write '{file}' (mode {mode:04o}): chmod 600 it")
