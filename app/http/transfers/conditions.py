"""Conditional requests and ranges, as RFC 9110 has them: If-Match, If-None-Match, If-Range and Range."""

import re
from dataclasses import dataclass
from typing import Self

from flask import request

from app.errors import BadRequest, PreconditionFailed, RangeNotSatisfiable

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RANGE = re.compile(r"bytes[ \t]*=[ \t,]*([0-9]*)-([0-9]*)[ \t,]*", re.IGNORECASE)
_FAR = 2**63
"""More than the size of any file."""


@dataclass(frozen=True)
class Tags:
    """The value of If-Match or If-None-Match: entity tags, each with whether it is weak; None for `*`."""

    tags: tuple[tuple[bool, str], ...] | None

    @classmethod
    def of(cls, header: str) -> Self | None:
        """The value of the header of the current request; None without it. Raises BadRequest."""
        text = request.headers.get(header)
        if text is None:
            return None
        if text.strip(" \t") == "*":
            return cls(None)
        found = _TAG.findall(text)
        if not found or _TAG.sub("", text).strip(" \t,"):
            raise BadRequest(f"The header {header} is malformed: it takes *, or ETags in their quotes.")
        return cls(tuple((bool(weak), tag) for weak, tag in found))

    def match(self, etag: str, *, weakly: bool) -> bool:
        """Whether they name `etag`, which is strong; strictly, a weak tag names nothing."""
        return self.tags is None or any(tag == etag != "" and (weakly or not weak) for weak, tag in self.tags)


@dataclass(frozen=True)
class Conditions:
    """What the current request wants to be true of the file that it is about."""

    if_match: Tags | None
    if_none_match: Tags | None

    @classmethod
    def of_request(cls) -> Self:
        """Those in the headers. Raises BadRequest for malformed ones."""
        return cls(Tags.of("If-Match"), Tags.of("If-None-Match"))

    def __bool__(self) -> bool:
        return bool(self.if_match or self.if_none_match)

    def require(self, etag: str | None) -> None:
        """Raise PreconditionFailed unless a change is wanted of the file with that ETag; None if there is no file."""
        self.require_match(etag)
        if self.if_none_match and etag is not None and self.if_none_match.match(etag, weakly=True):
            raise PreconditionFailed(
                "The file exists already, or has an ETag of If-None-Match; nothing was changed."
            )

    def require_match(self, etag: str | None) -> None:
        """Raise PreconditionFailed unless If-Match, if it was sent, names the file."""
        if self.if_match and (etag is None or not self.if_match.match(etag, weakly=False)):
            raise PreconditionFailed(
                "The file has changed, or there is none: it has no ETag of If-Match. Read it again first."
            )

    def is_known(self, etag: str) -> bool:
        """Whether the client has the file with that ETag already."""
        return bool(self.if_none_match and self.if_none_match.match(etag, weakly=True))


def requested_span(size: int, etag: str) -> tuple[int, int] | None:
    """The start and the end (exclusive) of the part that a GET asks for; None for the whole file.

    A Range of another unit, a malformed one and one of several parts is ignored, as the standard allows or demands.
    Raises RangeNotSatisfiable.
    """
    found = _RANGE.fullmatch(request.headers.get("Range", "").strip(" \t"))
    if not found or request.method != "GET" or not _is_of_this_file(etag):
        return None
    first, last = found.groups()
    if not (first or last) or (first and last and _number(last) < _number(first)):
        return None
    start = _number(first) if first else max(0, size - _number(last))
    stop = min(_number(last) + 1, size) if first and last else size
    if start >= stop:
        raise RangeNotSatisfiable(
            f"The range lies outside the file, which has {size} bytes; ask for a part of them.",
            size=size,
            etag=etag,
        )
    return start, stop


def _is_of_this_file(etag: str) -> bool:
    """Whether a range is of the file that the client has a part of; otherwise it gets the whole of this one."""
    condition = request.headers.get("If-Range")
    return condition is None or (etag != "" and condition.strip(" \t") == f'"{etag}"')


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= len(str(_FAR)) else _FAR
