"""Keys of an S3 bucket: listed flat, written as multipart uploads, deleted with all their versions.

A draft is a multipart upload of the very key that it will become. So publishing is one short request, whatever
the size: it is made in a transaction that holds the fileset still, and in that there is no time for a copy.
"""

import errno
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from s3fs import S3File, S3FileSystem

from app.storage.objectdraft import ObjectDraft, Upload
from app.storage.s3_errors import plain_errors, refusal
from app.storage.tree import Found, Removed

_CLIENT = {"connect_timeout": 5, "read_timeout": 10, "max_pool_connections": 32}
_ATTEMPTS = 2
"""Of each request. Both must fail within the 30 s after which PostgreSQL ends an idle transaction."""


class ObjectReader:
    """A stored file, fetched in the pieces that are asked for; never those of two versions."""

    def __init__(self, file: S3File) -> None:
        self._file = file
        self.size: int = file.size
        self.etag: str = (file.details.get("ETag") or "").strip('"')

    def seek(self, position: int) -> None:
        self._file.seek(position)

    def read(self, size: int) -> bytes:
        with plain_errors():
            chunk: bytes = self._file.read(size)
        return chunk

    def close(self) -> None:
        self._file.close()


class ObjectTree:
    """What FileTree promises, in a bucket. Directories are only what the slashes of keys make of them."""

    chunk_bytes = 4 * 1024 * 1024

    def __init__(self, filesystem: S3FileSystem, root: str) -> None:
        bucket, _, prefix = root.partition("/")
        self._fs, self._bucket = filesystem, bucket
        self._base = f"{prefix}/files/" if prefix else "files/"
        # Whatever the operator has set for s3fs wins. It connects on first use, not before.
        retries = {"total_max_attempts": 1, "mode": "standard"}  # s3fs makes its own.
        filesystem.config_kwargs = {**_CLIENT, "retries": retries, **filesystem.config_kwargs}
        filesystem.retries = _ATTEMPTS

    def path(self, key: str) -> str:
        """A key as s3fs has it."""
        return f"{self._bucket}/{self._base}{key}"

    # --- looking ------------------------------------------------------------------------------------------

    def children(self, top: str = "") -> list[Found]:
        prefix = self._prefix(top)
        found = []
        for page in self._pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
            directories = (each["Prefix"][:-1] for each in page.get("CommonPrefixes", []))
            found += [Found(self._key(each), 0, is_file=False) for each in directories]
            found += self._files_of(page)
        return found

    def files(self, top: str) -> Iterator[Found]:
        for page in self._pages("list_objects_v2", Prefix=self._prefix(top)):
            yield from self._files_of(page)

    def tops(self) -> set[str]:
        keys = [each.key for each in self.children()]
        keys += [self._key(upload["Key"]) for upload in self._uploads("")]
        return {key.partition("/")[0] for key in keys}

    def file_size(self, key: str) -> int:
        with plain_errors():
            entry = self._fs.info(self.path(key))
        if entry["type"] != "file":
            raise FileNotFoundError(f"{self.path(key)} is not a file")
        return int(entry["size"])

    def open_file(self, key: str) -> ObjectReader:
        with plain_errors():
            file = S3File(self._fs, self.path(key), "rb", block_size=self.chunk_bytes, cache_type="none")
        if file.details["type"] != "file":
            raise FileNotFoundError(f"{self.path(key)} is not a file")
        return ObjectReader(file)

    def etag(self, file: ObjectReader) -> str:
        return file.etag

    # --- writing and removing -----------------------------------------------------------------------------

    def draft(self, key: str, *, within: str, size: int | None = None) -> ObjectDraft:
        return ObjectDraft(self, key, within, size)

    def begin_upload(self, key: str) -> Upload:
        """Begin a multipart upload."""
        told = self._call("create_multipart_upload", Key=self._base + key)
        return {"Key": told["Key"], "UploadId": told["UploadId"]}

    def send_part(self, upload: Upload, number: int, content: bytes) -> dict[str, Any]:
        """Store a part; what to say of it when the upload is complete. Raises FileNotFoundError if that was aborted."""
        told = self._call("upload_part", **upload, PartNumber=number, Body=content)
        known = {name: told[name] for name in told if name == "ETag" or name.startswith("Checksum")}
        return {"PartNumber": number, **known}

    def complete(self, upload: Upload, parts: list[dict[str, Any]]) -> None:
        """Make the object of the parts. Raises FileNotFoundError if the upload was aborted."""
        self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})

    def refuse_conflict(self, key: str, within: str) -> None:
        """Raise as `FileDraft.publish` does. A bucket would keep `a` beside `a/b`, and nobody could download both."""
        if next(self.files(key), None):
            raise IsADirectoryError(f"{self.path(key)} is a directory")
        above = key.rpartition("/")[0]
        while above != within:
            with suppress(FileNotFoundError):
                self.file_size(above)
                raise NotADirectoryError(f"{self.path(above)} is a file")
            above = above.rpartition("/")[0]

    def remove_file(self, key: str) -> None:
        self._call("delete_object", Key=self._base + key)

    def remove_all(self, top: str) -> Iterator[Removed | OSError]:
        try:
            yield from self.remove_drafts(top)
        except OSError as error:  # They cannot be listed.
            yield error
        for doomed in self._versions(top):
            answer = self._call("delete_objects", Delete={"Objects": doomed, "Quiet": True})
            # The request as a whole has succeeded; s3fs would leave it at that.
            refused = {each["Key"]: each for each in answer.get("Errors", [])}
            for each in doomed:
                name = each["Key"]
                yield refusal(self.path(self._key(name)), refused[name]) if name in refused else each

    def is_there(self, removed: Removed) -> bool:
        with suppress(FileNotFoundError):
            self._call("list_parts" if "UploadId" in removed else "head_object", **removed)
            return True
        return False

    def remains(self, top: str) -> str | None:
        doomed = next(self._versions(top), None) or next(self._uploads(top), None)
        first = doomed[0] if isinstance(doomed, list) else doomed
        return self._key(first["Key"]) if first else None

    def prune(self, top: str) -> None:
        """There are no empty directories."""

    def _versions(self, top: str) -> Iterator[list[dict[str, str]]]:
        """Pages of everything below that takes up space, as `delete_objects` wants to be told."""
        if self._has_versions():
            for page in self._pages("list_object_versions", Prefix=self._prefix(top)):
                every = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
                if every:
                    yield [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in every]
            return
        for page in self._pages("list_objects_v2", Prefix=self._prefix(top)):
            if page.get("Contents"):
                yield [{"Key": each["Key"]} for each in page["Contents"]]

    def _has_versions(self) -> bool:
        try:
            return bool(self._call("get_bucket_versioning").get("Status"))
        except OSError as error:
            if error.errno == errno.ENOSYS:  # Stores that are only like S3.
                return False
            raise

    # --- drafts -------------------------------------------------------------------------------------------

    def remove_drafts(self, top: str) -> Iterator[Removed | OSError]:
        for upload in self._uploads(top):
            try:
                self.abort(upload)
            except OSError as error:
                yield error
            else:
                yield _named(upload)

    def drafted(self, top: str) -> set[str]:
        keys = (self._key(upload["Key"]) for upload in self._uploads(top))
        return {f"{top}/{key.removeprefix(f'{top}/').partition('/')[0]}" for key in keys}

    def collect_drafts(self, older_than: datetime) -> Iterator[Removed | OSError]:
        for upload in self._uploads(""):
            try:
                if upload["Initiated"] < older_than and self._last_written(upload) < older_than:
                    self.abort(upload)
                    yield _named(upload)
            except FileNotFoundError:  # Published or discarded meanwhile.
                continue
            except OSError as error:
                yield error

    def _last_written(self, upload: dict[str, Any]) -> datetime:
        parts = (
            part for page in self._pages("list_parts", **_named(upload)) for part in page.get("Parts", [])
        )
        latest: datetime = max((part["LastModified"] for part in parts), default=upload["Initiated"])
        return latest

    def _uploads(self, top: str) -> Iterator[dict[str, Any]]:
        prefix = self._prefix(top)
        for page in self._pages("list_multipart_uploads", Prefix=prefix):
            # Not every store minds the prefix.
            yield from (each for each in page.get("Uploads", []) if each["Key"].startswith(prefix))

    def abort(self, upload: Upload) -> None:
        """End an upload and remove its parts; no harm if it is complete or was aborted."""
        with suppress(FileNotFoundError):
            self._call("abort_multipart_upload", **_named(upload))

    # --- S3 -----------------------------------------------------------------------------------------------

    def _prefix(self, top: str) -> str:
        return f"{self._base}{top}/" if top else self._base

    def _key(self, name: str) -> str:
        return name.removeprefix(self._base)

    def _files_of(self, page: dict[str, Any]) -> list[Found]:
        # A name that ends in a slash is how some tools remember an empty directory.
        return [
            Found(self._key(each["Key"]), each["Size"], is_file=True)
            for each in page.get("Contents", [])
            if not each["Key"].endswith("/")
        ]

    def _pages(self, method: str, **wanted: Any) -> Iterator[dict[str, Any]]:
        while True:
            page = self._call(method, **wanted)
            yield page
            if not page.get("IsTruncated"):
                return
            wanted |= {name.removeprefix("Next"): page[name] for name in page if name.startswith("Next")}

    def _call(self, method: str, **wanted: Any) -> dict[str, Any]:
        with plain_errors():
            # What the operator wants with every request that knows it, such as how to encrypt.
            usual = self._fs.s3_additional_kwargs
            answer: dict[str, Any] = self._fs.call_s3(method, usual, Bucket=self._bucket, **wanted)
        return answer


def _named(upload: Upload) -> Upload:
    return {"Key": upload["Key"], "UploadId": upload["UploadId"]}
