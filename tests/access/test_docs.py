"""docs/access.md says what the table of roles says."""

import re
from pathlib import Path

from app.access.permissions import AUTHENTICATED, OPEN, TABLE, Permission
from app.access.roles import Role

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text()


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    head, *rows = [
        line.split("|")[1:-1] for line in PAGE.splitlines() if re.match(r"\| *(\||`\w+:\w+`)", line)
    ]
    roles = [Role(cell.strip()) for cell in head[1:]]
    told = {
        (Permission(permission), role)
        for permissions, *cells in rows
        for permission in re.findall("`(.*?)`", permissions)
        for role, cell in zip(roles, cells, strict=True)
        if cell.strip() == "yes"
    }

    tabled = set(Permission) - AUTHENTICATED - OPEN
    assert set(roles) == set(Role)
    assert told == {(permission, role) for role in Role for permission in TABLE[role] & tabled}, (
        "docs/access.md and app/access/permissions.py differ: mend the one that is wrong"
    )
