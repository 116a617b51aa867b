"""CHANGELOG.md says what users can do."""

import re
from pathlib import Path

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()


def test_a_product_that_was_never_released_has_only_additions() -> None:
    releases = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    first = CHANGELOG.rpartition("\n## ")[2]

    assert releases
    assert re.findall(r"^### (.+)$", first, re.MULTILINE) == ["Added"], (
        "Before the first release nothing is changed or fixed for users: say under 'Added' what they have now."
    )
