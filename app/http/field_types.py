"""Field types that the bodies of several resources share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = ["NAME_PATTERN", "Deleted", "Description", "Name", "Resource", "ShortText", "VariableName"]

_NAME = re.compile(r"[a-z](?!.*--)[a-z0-9\-@.+_]{1,62}(?<!-)\Z")
_NAME_RULE = (
    "a name has 2 to 63 characters, starts with a lowercase letter a-z, contains only lowercase letters, "
    "digits, hyphens and @ . + _, has no two hyphens in a row, and does not end with a hyphen"
)


NAME_PATTERN = r"^[a-z](?!.*--)[a-z0-9\-@.+_]{1,62}(?<!-)$"


def _named(value: str) -> str:
    if not _NAME.match(value):
        raise PydanticCustomError(
            "string_pattern_mismatch",
            "{rule}",
            {"rule": f"Invalid name: {_NAME_RULE}", "pattern": NAME_PATTERN},
        )
    return value


Name = Annotated[
    str,
    AfterValidator(_named),
    Field(
        description=_NAME_RULE[0].upper() + _NAME_RULE[1:] + ".", json_schema_extra={"pattern": NAME_PATTERN}
    ),
]
"""The documented rule for names. Anchored with \\Z: `$` would let a trailing newline pass."""


Description = Annotated[str, Field(max_length=10_000)]
"""Free text about a thing. Room for a long read me; a list of a thousand of them can still be answered."""

ShortText = Annotated[str, Field(max_length=255)]
"""A short text that is no name: it refers to something, or says where something comes from."""

VariableName = Annotated[str, Field(min_length=1, pattern="^[^=]+$")]
"""The name of an environment variable, as far as any system can pass it on."""


class Resource(BaseModel):
    """A response body, readable from a row."""

    model_config = ConfigDict(from_attributes=True)


class Deleted(BaseModel):
    """What a synchronous DELETE answers."""

    message: str
    id: str
