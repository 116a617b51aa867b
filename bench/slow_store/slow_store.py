"""`slow://<directory>`: a local filesystem that answers each request late, as a store across a network does.

The latency in seconds is in `<directory>/../latency`, read for each request. A worker finds this module when this
directory is on its PYTHONPATH.
"""

import time
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class SlowFileSystem(LocalFileSystem):
    """Local files, after a while."""

    protocol = "slow"

    def __init__(self, root: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._latency = Path(root).parent / "latency"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        # fsspec passes the URL to a filesystem by way of this method.
        return {"root": path.removeprefix("slow://")}

    def rm_file(self, path: str) -> None:
        self._wait()
        super().rm_file(path)

    def rmdir(self, path: str) -> None:
        self._wait()
        super().rmdir(path)

    def ls(self, path: str, detail: Any = False, **kwargs: Any) -> Any:
        self._wait()
        return super().ls(path, detail=detail, **kwargs)

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._wait()
        return super()._open(path, *args, **kwargs)

    def _wait(self) -> None:
        time.sleep(float(self._latency.read_text()))
