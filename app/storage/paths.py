"""Valid paths of files in a fileset, for every way to store one, and the paths that errors may name."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from app.errors import BadRequest

P = ParamSpec("P")
R = TypeVar("R")

_MAX_PATH_BYTES = 1024  # The limit of S3 for a key; no filesystem has a lower one.
_MAX_COMPONENT_BYTES = 255  # The limit of filesystems for a name.


_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")
"""Control characters, what is no UTF-8 (the server puts U+FFFD there), and what the XML of S3 cannot carry."""
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks that change the order in which a name is shown, so that it reads as another."""
_OF_WINDOWS = re.compile(r"\\|[A-Za-z]:|.*(^|[/\\])\.\.($|[/\\])", re.DOTALL)
"""Where a client on Windows that joins paths would leave its directory: `\\server`, `C:`, `..\\`."""


def checked_path(path: str) -> str:
    """`path`, if it names a file inside the fileset in every kind of store and for every client. Raises BadRequest."""
    if fault := _fault(path):
        raise BadRequest(fault)
    return path


def can_be_asked_for(path: str) -> bool:
    """Whether `checked_path` lets a path pass that was found in a store."""
    return _fault(path) is None


def _fault(path: str) -> str | None:
    components = path.split("/")
    if ".." in components:
        return f"Path '{path}' resolves outside of the storage root. Remove '..' from it."
    if "" in components or "." in components:
        return f"Path '{path}' has an empty component or '.': write 'directory/file', without them."
    if "?versionId=" in path:
        # s3fs would read the rest as a version and the start as the path of another file.
        return "The path must not contain '?versionId='; choose another name."
    if _UNFIT.search(path):
        return "The path contains control characters, U+FFFE or U+FFFF, or is not UTF-8; remove them."
    if _REORDERING.search(path):
        return "The path contains marks that change the direction of text; remove them."
    if _OF_WINDOWS.match(path):
        return (
            "The path would lead out of its directory on Windows: start it with neither '\\' nor a drive, "
            "and put no '..' beside a '\\'."
        )
    return _too_long(path, components)


def _too_long(path: str, components: list[str]) -> str | None:
    longest = max(len(each.encode()) for each in components)
    if len(path.encode()) <= _MAX_PATH_BYTES and longest <= _MAX_COMPONENT_BYTES:
        return None
    return (
        f"The path is too long: at most {_MAX_PATH_BYTES} bytes, and {_MAX_COMPONENT_BYTES} between slashes."
    )


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
