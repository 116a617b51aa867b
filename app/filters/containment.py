"""What a document contains if a value in it equals a certain one: what an index of documents can look for."""

import json
import re
from collections.abc import Sequence
from itertools import product
from math import prod

MOST = 100
"""The most documents for one comparison: an index looks for each by itself."""

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
"""A number as PostgreSQL writes it, without an exponent."""
_POSITION = re.compile(r"\s*[-+]?[0-9]+")


def containing(path: Sequence[str], values: Sequence[str]) -> list[str] | None:
    """Documents, of which every one with one of the JSON `values` at `path` contains one. None if there are too many.

    Another document may contain one, too: whether its value is equal has still to be asked.
    """
    steps = [_steps(step) for step in path]
    if len(values) * prod(map(len, steps)) > MOST:
        return None
    return [_nested(chosen, value) for value in values for chosen in product(*steps)]


def values_of(text: str) -> list[str] | None:
    """The JSON values that have this text: the string, a number, a boolean. None if it is that of a larger one."""
    if text.startswith(("[", "{")) and _is_json(text):
        return None
    is_literal = text in ("true", "false") or _NUMBER.fullmatch(text)
    return [json.dumps(text, ensure_ascii=False), *([text] if is_literal else [])]


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _steps(step: str) -> list[tuple[str, str]]:
    """What stands before and after a value that one step of a path leads to."""
    of_object = (f"{{{json.dumps(step, ensure_ascii=False)}:", "}")
    # In an array it is a position, which containment does not ask for.
    return [of_object, ("[", "]")] if _POSITION.match(step) else [of_object]


def _nested(steps: Sequence[tuple[str, str]], value: str) -> str:
    before, after = zip(*steps, strict=True)
    return "".join([*before, value, *reversed(after)])
