"""Each test that docs/compatibility.md names as a proof exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "compatibility.md"


def test_each_test_that_is_named_as_a_proof_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT.read_text())

    missing = [f"{file}::{name}" for file, name in named if name not in _tests_of(ROOT / file)]

    assert len(named) > 20, "docs/compatibility.md names its proofs as `tests/…/test_x.py::test_y`"
    assert missing == [], "rename them in docs/compatibility.md, too"


def _tests_of(file: Path) -> set[str]:
    if not file.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}
