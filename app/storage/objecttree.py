"""A tree of files in an S3 bucket: listed flat, written as multipart uploads, deleted with all their versions.

A staged upload is a multipart upload of the key that it will be published under. So publishing is one short
request for any size: it runs in a transaction that locks the fileset, in which there is no time for a copy.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from s3fs import S3File, S3FileSystem

from app.storage.bucket import Bucket, identity
from app.storage.s3_errors import deletion_error, plain_errors
from app.storage.staged_object import StagedObject
from app.storage.tree import Found, Removed

_XML_UNFIT = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot carry, or that its readers change."""


class ObjectReader:
    """A stored file, fetched in the pieces that are asked for; it never mixes two versions."""

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
    """FileTree's promises, kept in a bucket. Its directories are the prefixes that slashes in keys form."""

    chunk_bytes = 4 * 1024 * 1024
    trusted_s = 60.0

    def __init__(self, filesystem: S3FileSystem, root: str) -> None:
        self._fs = filesystem
        self._bucket = Bucket(filesystem, root)
        self._is_versioned: bool | None = None
        """As the bucket last said: `remains` asks each time, and finds what a removal on an old answer leaves."""

    # --- reading ------------------------------------------------------------------------------------------

    def children(self, top: str = "") -> list[Found]:
        prefix = self._bucket.prefix(top)
        found = []
        for page in self._bucket.pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
            directories = (each["Prefix"][:-1] for each in page.get("CommonPrefixes", []))
            found += [Found(self._bucket.key(each), 0, is_file=False) for each in directories]
            found += self._files_of(page)
        return found

    def files(self, top: str) -> Iterator[Found]:
        for page in self._bucket.pages("list_objects_v2", Prefix=self._bucket.prefix(top)):
            yield from self._files_of(page)

    def _files_of(self, page: dict[str, Any]) -> list[Found]:
        # Some tools represent an empty directory by an object whose name ends in a slash.
        return [
            Found(self._bucket.key(each["Key"]), each["Size"], is_file=True)
            for each in page.get("Contents", [])
            if not each["Key"].endswith("/")
        ]

    def tops(self) -> set[str]:
        keys = [each.key for each in self.children()]
        keys += [self._bucket.key(upload["Key"]) for upload in self._bucket.uploads("")]
        return {key.partition("/")[0] for key in keys}

    def file_size(self, key: str) -> int:
        entry = self._bucket.info(key)
        if entry["type"] != "file":
            raise FileNotFoundError(f"{self._bucket.path(key)} is not a file")
        return int(entry["size"])

    def open_file(self, key: str) -> ObjectReader:
        path = self._bucket.path(key)
        with plain_errors():
            file = S3File(self._fs, path, "rb", block_size=self.chunk_bytes, cache_type="none")
        if file.details["type"] != "file":
            raise FileNotFoundError(f"{path} is not a file")
        return ObjectReader(file)

    def read_start(self, key: str, size: int) -> bytes:
        # One GET: the answer to a HEAD would not say why it was refused.
        with plain_errors():
            return bytes(self._fs.cat_file(self._bucket.path(key), start=0, end=size))

    def etag(self, file: ObjectReader) -> str:
        return file.etag

    # --- writing ------------------------------------------------------------------------------------------

    def stage(self, key: str, *, within: str, size: int | None = None) -> StagedObject:
        return StagedObject(
            self._bucket, key, size, refuse_conflict=partial(self._refuse_conflict, key, within)
        )

    def _refuse_conflict(self, key: str, within: str) -> None:
        # A bucket would keep `a` beside `a/b`, and no client could download both to a disk.
        if next(self.files(key), None):
            raise IsADirectoryError(f"{self._bucket.path(key)} is a directory")
        above = key.rpartition("/")[0]
        while above != within:
            with suppress(FileNotFoundError):
                self.file_size(above)
                raise NotADirectoryError(f"{self._bucket.path(above)} is a file")
            above = above.rpartition("/")[0]

    def restrict(self) -> None:
        """Who may read a bucket is the operator's to say."""

    # --- removing -----------------------------------------------------------------------------------------

    def remove_file(self, key: str) -> None:
        self._bucket.call("delete_object", Key=self._bucket.name(key))

    def remove_all(self, top: str) -> Iterator[Removed | OSError]:
        try:
            yield from self.remove_staged_uploads(top)
        except OSError as error:  # They cannot be listed.
            yield error
        is_versioned = self._has_versions() if self._is_versioned is None else self._is_versioned
        for page in self._versions(top, is_versioned=is_versioned):
            batch = [each for each in page if not _XML_UNFIT.search(each["Key"])]
            yield from self._remove_singly(each for each in page if _XML_UNFIT.search(each["Key"]))
            if not batch:
                continue
            answer = self._bucket.call("delete_objects", Delete={"Objects": batch, "Quiet": True})
            # The request as a whole succeeded, which is all that s3fs checks; single keys may have failed.
            failed = {each["Key"]: each for each in answer.get("Errors", [])}
            for each in batch:
                name = each["Key"]
                path = self._bucket.path(self._bucket.key(name))
                yield deletion_error(path, failed[name]) if name in failed else each

    def _remove_singly(self, versions: Iterable[dict[str, str]]) -> Iterator[Removed | OSError]:
        """Delete objects whose names the XML of `delete_objects` cannot carry; here they are part of the URL."""
        for each in versions:
            try:
                self._bucket.call("delete_object", **each)
            except OSError as error:
                yield error
            else:
                yield each

    def is_displaced(self, top: str) -> bool:  # noqa: ARG002 -- for FileTree
        """A bucket has no directories that something could stand in the place of."""
        return False

    def remove_displaced(self, top: str) -> str | None:  # noqa: ARG002 -- for FileTree
        return None

    def sync(self, top: str) -> None:
        """What a bucket has answered is durable."""

    def is_there(self, removed: Removed) -> bool:
        with suppress(FileNotFoundError):
            self._bucket.call("list_parts" if "UploadId" in removed else "head_object", **removed)
            return True
        return False

    def remains(self, top: str) -> str | None:
        batch = next(self._versions(top, is_versioned=self._has_versions()), None)
        first = batch[0] if batch else next(self._bucket.uploads(top), None)
        return self._bucket.key(first["Key"]) if first else None

    def prune(self, top: str) -> None:
        """A bucket has no empty directories."""

    def _versions(self, top: str, *, is_versioned: bool) -> Iterator[list[dict[str, str]]]:
        """Pages of all objects, versions and delete markers below `top`, in the form that `delete_objects` takes."""
        if is_versioned:
            for page in self._bucket.pages("list_object_versions", Prefix=self._bucket.prefix(top)):
                every = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
                if every:
                    yield [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in every]
            return
        for page in self._bucket.pages("list_objects_v2", Prefix=self._bucket.prefix(top)):
            if page.get("Contents"):
                yield [{"Key": each["Key"]} for each in page["Contents"]]

    def _has_versions(self) -> bool:
        try:
            self._is_versioned = bool(self._bucket.call("get_bucket_versioning").get("Status"))
        except OSError as error:
            if error.errno != errno.ENOSYS:  # An S3-compatible store without versioning.
                raise
            self._is_versioned = False
        return self._is_versioned

    # --- staged uploads -----------------------------------------------------------------------------------

    def remove_staged_uploads(self, top: str) -> Iterator[Removed | OSError]:
        for upload in self._bucket.uploads(top):
            try:
                self._bucket.abort(upload)
            except OSError as error:
                yield error
            else:
                yield identity(upload)

    def with_staged_uploads(self, top: str) -> set[str]:
        keys = (self._bucket.key(upload["Key"]) for upload in self._bucket.uploads(top))
        return {f"{top}/{key.removeprefix(f'{top}/').partition('/')[0]}" for key in keys}

    def collect_staged_uploads(self, older_than: datetime) -> Iterator[Removed | OSError]:
        for upload in self._bucket.uploads(""):
            try:
                if upload["Initiated"] < older_than and self._bucket.last_written(upload) < older_than:
                    self._bucket.abort(upload)
                    yield identity(upload)
            except FileNotFoundError:  # Published or discarded meanwhile.
                continue
            except OSError as error:
                yield error
