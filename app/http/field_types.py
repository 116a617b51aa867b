"""Field types and base classes that the schemas of several resources share."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

__all__ = [
    "NAME_PATTERN",
    "Deleted",
    "Description",
    "Name",
    "Reason",
    "Resource",
    "ShortText",
    "VariableName",
]

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
"""The documented rule for names. The expression ends in \\Z, because `$` would let a trailing newline pass."""


Description = Annotated[str, Field(max_length=10_000)]
"""Free text about a resource. The limit leaves room for a long README and keeps a list of a thousand small enough."""

ShortText = Annotated[str, Field(max_length=255)]
"""A short text that need not be a name: a reference or a source."""

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
"""Why somebody does something that is kept on record."""

VariableName = Annotated[str, Field(min_length=1, pattern="^[^=]+$")]
"""The name of an environment variable. Every operating system refuses `=` in one."""


class Resource(BaseModel):
    """The public form of a row; fields have the names of the columns they are read from."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def from_row(cls, row: Any, workspace_name: str | None = None, **values: Any) -> Self:
        """Build the resource from `row`, the name of its workspace, and `values` for fields without a column.

        `values` win over columns of the same name.
        """
        columns = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        named = {} if workspace_name is None else {"workspace": workspace_name}
        return cls.model_validate(columns | named | values)


class Deleted(BaseModel):
    """The answer to a synchronous DELETE."""

    message: str
    id: str
