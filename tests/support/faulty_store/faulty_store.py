"""`faulty://<directory>`: a local filesystem whose faults are in `<directory>/faults.json`.

The file maps a part of a path to the fault of such a path when it is deleted, listed or opened:
`503`, `forbidden` or `forbidden:<what the store says of it>`, `hang` (until the entry is taken out of the file) or
`slow:<seconds>`. It is read anew for each operation, so that a test steers processes it has started; replace it
whole, by a rename.
They find this module when this directory is on their PYTHONPATH.
"""

import json
import time
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

_POLL_SECONDS = 0.05


class FaultyFileSystem(LocalFileSystem):
    """Local files, and trouble on demand."""

    protocol = "faulty"

    def __init__(self, root: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._faults = Path(root, "faults.json")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        # fsspec passes the URL to a filesystem by way of this method.
        return {"root": path.removeprefix("faulty://")}

    def rm_file(self, path: str) -> None:
        self._suffer(path)
        super().rm_file(path)

    def rm(self, path: Any, **kwargs: Any) -> None:
        for each in [path] if isinstance(path, str) else path:
            self._suffer(each)
        super().rm(path, **kwargs)

    def rmdir(self, path: str) -> None:
        self._suffer(path)
        super().rmdir(path)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        self._suffer(path)
        return super().ls(path, detail=detail, **kwargs)

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._suffer(path)
        return super()._open(path, *args, **kwargs)

    def _suffer(self, path: str) -> None:
        while fault := self._fault_of(path):
            match fault.split(":"):
                case ["503"]:
                    raise OSError(f"503 Service Unavailable: {path}")
                case ["forbidden", *why]:
                    raise PermissionError(": ".join(["403 Forbidden", *why, path]))
                case ["hang"]:
                    time.sleep(_POLL_SECONDS)
                case ["slow", seconds]:
                    time.sleep(float(seconds))
                    return
                case _:
                    raise ValueError(f"{self._faults} names an unknown fault: {fault}")

    def _fault_of(self, path: str) -> str | None:
        if not self._faults.exists():
            return None
        faults: dict[str, str] = json.loads(self._faults.read_text())
        return next((fault for part, fault in faults.items() if part in path), None)
