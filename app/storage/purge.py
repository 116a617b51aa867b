"""Purges: delete everything below a key, stop at a deadline, and verify that nothing is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from time import monotonic

from app.storage.tree import Removed, Tree


class BytesRemain(Exception):
    """Bytes are left where none may be."""


@dataclass(frozen=True)
class PartialPurge:
    """A purge that reached its deadline: `removed` files, staged uploads and directories are gone; more may be left."""

    removed: int


def purge(tree: Tree, top: str, within_s: float = inf) -> PartialPurge | None:
    """Delete everything below `top`. None if all is gone; raises BytesRemain if the tree only reported so."""
    if partial := carry_out(tree, tree.remove_all(top), within_s):
        return partial
    if left := tree.remains(top):
        raise BytesRemain(f"{below_workspace(left)} is still there after it was deleted")
    tree.sync(top)
    return None


def carry_out(tree: Tree, steps: Iterator[Removed | OSError], within_s: float = inf) -> PartialPurge | None:
    """Take all `steps`, or as many as there is time for. The first error among them is raised at the end.

    A partial purge has removed something for certain, so the next call makes progress.
    """
    removed, first, failure, deadline = 0, None, None, inf
    for step in steps:
        # The time starts with the first step: a slow listing alone must not use it up, or nothing would ever go.
        deadline = min(deadline, monotonic() + within_s)
        if isinstance(step, OSError):
            failure = failure or step
        else:
            removed, first = removed + 1, first or step
        if monotonic() >= deadline:
            break
    else:
        if failure:
            raise failure
        return None
    if failure and not removed:
        raise failure
    if tree.is_there(
        first
    ):  # A store that reports deletions falsely would make the caller start again for ever.
        raise BytesRemain("what was deleted first is still there")
    return PartialPurge(removed)


def below_workspace(key: str) -> str:
    """The part of a key below the workspace's id, for messages."""
    return key.partition("/")[2]
