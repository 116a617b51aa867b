"""What a file of a fileset may be called, whoever puts it there."""

import unicodedata

from app.errors import BadRequest

_MAX_PATH_BYTES = 1024  # What S3 allows a key, and no filesystem has less.
_MAX_COMPONENT_BYTES = 255  # What filesystems allow a name.


def checked_path(path: str) -> str:
    """`path`, if it can name a file below the fileset and nothing else, in every store. Raises BadRequest."""
    components = path.split("/")
    if ".." in components:
        raise BadRequest(f"Path '{path}' resolves outside of the storage root. Remove '..' from it.")
    if "" in components or "." in components:
        raise BadRequest(
            f"Path '{path}' has an empty component or '.': write 'directory/file', without them."
        )
    if "?versionId=" in path:
        # A bucket's driver would take the rest for a version, and the path for that of another file.
        raise BadRequest("The path contains '?versionId=', which no path may; choose another name.")
    # U+FFFD is what the server makes of bytes that are not UTF-8.
    if any(unicodedata.category(sign) in ("Cc", "Cs") or sign == "\ufffd" for sign in path):
        raise BadRequest("The path contains control characters or is not UTF-8; remove them.")
    if (
        len(path.encode()) > _MAX_PATH_BYTES
        or max(len(each.encode()) for each in components) > _MAX_COMPONENT_BYTES
    ):
        raise BadRequest(
            f"The path is too long: at most {_MAX_PATH_BYTES} bytes, and {_MAX_COMPONENT_BYTES} between slashes."
        )
    return path
