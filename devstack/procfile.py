"""Reads a Procfile, the one list of the product's commands."""

import re
from pathlib import Path


def read_procfile(path: Path) -> dict[str, str]:
    """The shell commands of a Procfile by name, in its order. Other lines are comments."""
    return dict(re.findall(r"^([A-Za-z0-9_-]+):\s*(.+?)\s*$", path.read_text(), flags=re.MULTILINE))
