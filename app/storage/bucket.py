"""Requests to one S3 bucket: names, pages, and multipart uploads."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from s3fs import S3FileSystem

from app.storage.s3_errors import plain_errors

Upload = dict[str, Any]
"""A multipart upload as S3 describes it; `Key` and `UploadId` identify it."""

_CLIENT = {"connect_timeout": 5, "read_timeout": 10, "max_pool_connections": 32}
_ATTEMPTS = 2
"""Attempts per request. Both must fail within the 30 s after which PostgreSQL ends an idle transaction."""
_REQUEST_S = 30.0
"""Time limit of a request with all its attempts. The client's are for each packet, and none for what it sends."""
_BYTES_PER_S = 256 * 1024
"""The minimum rate at which the store takes content, which extends the limit."""


class Bucket:
    """The objects of one bucket whose names start with one prefix. A key is a name without that prefix."""

    def __init__(self, filesystem: S3FileSystem, root: str) -> None:
        bucket, _, prefix = root.partition("/")
        self.filesystem, self._bucket = filesystem, bucket
        self._base = f"{prefix}/files/" if prefix else "files/"
        # The operator's settings for s3fs take precedence. It connects on first use, not before.
        retries = {"total_max_attempts": 1, "mode": "standard"}  # s3fs does its own retries.
        filesystem.config_kwargs = {**_CLIENT, "retries": retries, **filesystem.config_kwargs}
        filesystem.retries = _ATTEMPTS

    def path(self, key: str) -> str:
        """The path of a key in s3fs."""
        return f"{self._bucket}/{self._base}{key}"

    def name(self, key: str) -> str:
        """The object name of a key."""
        return self._base + key

    def key(self, name: str) -> str:
        """The key of an object name."""
        return name.removeprefix(self._base)

    def prefix(self, top: str) -> str:
        """The start of the names of all objects below `top`."""
        return f"{self._base}{top}/" if top else self._base

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one request. Raises only OSErrors; see `plain_errors`."""
        within_s = _REQUEST_S + len(parameters.get("Body", b"")) / _BYTES_PER_S
        with plain_errors():
            # Parameters that the operator sets for every request, such as the encryption.
            usual = self.filesystem.s3_additional_kwargs
            answer: dict[str, Any] = self.filesystem.call_s3(
                method, usual, Bucket=self._bucket, timeout=within_s, **parameters
            )
        return answer

    def info(self, key: str) -> dict[str, Any]:
        """What s3fs knows of a file or directory. Raises only OSErrors."""
        with plain_errors():
            info: dict[str, Any] = self.filesystem.info(self.path(key), timeout=_REQUEST_S)
        return info

    def pages(self, method: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """All pages of a list request."""
        while True:
            page = self.call(method, **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            following = {name.removeprefix("Next"): page[name] for name in page if name.startswith("Next")}
            if method == "list_multipart_uploads" and page.get("EncodingType") == "url":
                following["KeyMarker"] = unquote_plus(following["KeyMarker"])
            parameters |= following

    # --- multipart uploads --------------------------------------------------------------------------------

    def begin_upload(self, key: str) -> Upload:
        """Begin a multipart upload."""
        return identity(self.call("create_multipart_upload", Key=self.name(key)))

    def send_part(self, upload: Upload, number: int, content: bytes) -> dict[str, Any]:
        """Store a part; returns its entry for `complete`. Raises FileNotFoundError if the upload was aborted."""
        answer = self.call("upload_part", **upload, PartNumber=number, Body=content)
        kept = {name: answer[name] for name in answer if name == "ETag" or name.startswith("Checksum")}
        return {"PartNumber": number, **kept}

    def complete(self, upload: Upload, parts: list[dict[str, Any]]) -> None:
        """Make the object from its parts. Raises FileNotFoundError if the upload was aborted."""
        self.call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})

    def abort(self, upload: Upload) -> None:
        """End an upload and remove its parts; no error if it is complete or aborted already."""
        with suppress(FileNotFoundError):
            self.call("abort_multipart_upload", **identity(upload))

    def uploads(self, top: str) -> Iterator[Upload]:
        """The multipart uploads below `top` that are neither complete nor aborted."""
        prefix = self.prefix(top)
        # Encoded, because a name that XML cannot carry would make the whole answer unreadable; botocore asks for that
        # and decodes it by itself in other lists.
        for page in self.pages("list_multipart_uploads", Prefix=prefix, EncodingType="url"):
            for each in page.get("Uploads", []):
                key = unquote_plus(each["Key"]) if page.get("EncodingType") == "url" else each["Key"]
                if key.startswith(prefix):  # Some stores ignore the prefix.
                    yield {**each, "Key": key}

    def last_written(self, upload: Upload) -> datetime:
        """The time of the newest part, or that of the start if there is none."""
        parts = (
            part for page in self.pages("list_parts", **identity(upload)) for part in page.get("Parts", [])
        )
        latest: datetime = max((part["LastModified"] for part in parts), default=upload["Initiated"])
        return latest


def identity(upload: Upload) -> Upload:
    """The two fields that identify an upload in requests."""
    return {"Key": upload["Key"], "UploadId": upload["UploadId"]}
