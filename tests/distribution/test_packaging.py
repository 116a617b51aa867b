"""A stranger may take it: what the project says of itself is true, and what is installed is whole."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from app.version import VERSION

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = (
    subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    .strip("\0")
    .split("\0")
)

# From a package index comes what somebody has published there, and of ours nothing is.
INSTALLED_BY_NAME = re.compile(
    r"\bpip3?\s+install\b[^\n]*[\s'\"`]workspaces\b|\binstall\s+[`'\"]?workspaces\b|\bworkspaces\[\w"
)


def test_no_text_tells_anybody_to_install_our_name_from_a_package_index() -> None:
    found = [
        f"{name}: {line.strip()}"
        for name in TEXTS
        if Path(name) != Path("tests/distribution/test_packaging.py") and (ROOT / name).is_file()
        for line in (ROOT / name).read_text(errors="replace").splitlines()
        if (said := INSTALLED_BY_NAME.search(line)) and not _is_an_index(said[0], line)
    ]

    assert found == [], "Say `pip install '.[extra]'` in a checkout."


def _is_an_index(said: str, line: str) -> bool:
    """Whether Python looks into a dictionary called `workspaces` there."""
    return said.startswith("workspaces[") and f".{said}" in line


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'workspaces[s3]'",
        "pip install --upgrade workspaces",
        "install workspaces[s3]",
        "workspaces[s3] stays",
    ],
)
def test_what_would_be_such_a_text_is_found(text: str) -> None:
    assert INSTALLED_BY_NAME.search(text)


def test_there_is_a_licence_and_a_word_on_security() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "SECURITY.md" in TEXTS


def test_no_address_is_invented() -> None:
    assert "urls" not in PROJECT
    assert not re.search(r"https?://|\S+@\S+\.\S+", (ROOT / "SECURITY.md").read_text())


def test_the_version_stands_in_one_place() -> None:
    written = [
        name
        for name in TEXTS
        if name.endswith((".py", ".toml", ".yml"))
        and f'"{VERSION}"' in (ROOT / name).read_text(errors="replace")
    ]

    assert written == ["app/version.py"]
