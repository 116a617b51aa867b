"""Valid paths of files in a fileset, for every way to store one, and the paths that errors may name."""

import unicodedata
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from app.errors import BadRequest

P = ParamSpec("P")
R = TypeVar("R")

_MAX_PATH_BYTES = 1024  # The limit of S3 for a key; no filesystem has a lower one.
_MAX_COMPONENT_BYTES = 255  # The limit of filesystems for a name.


def checked_path(path: str) -> str:
    """`path`, if it names a file inside the fileset in every kind of store. Raises BadRequest otherwise."""
    components = path.split("/")
    if ".." in components:
        raise BadRequest(f"Path '{path}' resolves outside of the storage root. Remove '..' from it.")
    if "" in components or "." in components:
        raise BadRequest(
            f"Path '{path}' has an empty component or '.': write 'directory/file', without them."
        )
    if "?versionId=" in path:
        # s3fs would read the rest as a version and the start as the path of another file.
        raise BadRequest("The path must not contain '?versionId='; choose another name.")
    # The server replaces bytes that are not UTF-8 by U+FFFD; S3 answers in XML, which cannot carry the two after it.
    if any(unicodedata.category(sign) in ("Cc", "Cs") or "\ufffd" <= sign <= "\uffff" for sign in path):
        raise BadRequest(
            "The path contains control characters, U+FFFE or U+FFFF, or is not UTF-8; remove them."
        )
    if (
        len(path.encode()) > _MAX_PATH_BYTES
        or max(len(each.encode()) for each in components) > _MAX_COMPONENT_BYTES
    ):
        raise BadRequest(
            f"The path is too long: at most {_MAX_PATH_BYTES} bytes, and {_MAX_COMPONENT_BYTES} between slashes."
        )
    return path


def naming_relative_paths(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Make the paths in OSErrors of a method `relative`: users read them."""

    @wraps(method)
    def guarded(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            # Changed in place: callers decide by the class whether to retry.
            error.args = tuple(self.relative(value) for value in error.args)
            if error.filename is not None:  # Even None, once set, would change how the error reads.
                error.filename = self.relative(error.filename)
            if error.filename2 is not None:
                error.filename2 = self.relative(error.filename2)
            raise

    return guarded
