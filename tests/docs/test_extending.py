"""docs/extending.md, followed to the letter in a copy of the product: a kind of toys, and a workspace with some."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "extending.md").read_text().partition("## A runtime")[0]
STEP = re.compile(
    r"^\*\*(?:New file `(?P<new>[^`]+)`|In `(?P<old>[^`]+)`, above (?P<ticks>`+)(?P<anchor>.+?)(?P=ticks))\*\*:.*?"
    r"^```\w*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

OF_A_NEW_MIGRATION = (
    "test_the_newest_version_is_the_schema_of_the_models",
    "test_every_step_can_be_taken_back",
)

TOY_TEST = """
from sqlalchemy import select

from app import clock
from app.cleanup import preview, requests
from app.cleanup.engine import run_slice
from app.db import session_scope
from app.models import Workspace
from tests.factories import make_toy, make_workspace, rows_of
from tests.support.actors import trusted


def test_a_workspace_goes_with_its_toys(session, context):
    doomed, neighbour = make_workspace(session), make_workspace(session, "neighbour")
    toys = [make_toy(session, workspace) for workspace in (doomed, neighbour)]
    session.commit()
    doomed_id, neighbour_id, kept = doomed.id, neighbour.id, str(toys[1].id)
    toy_files = context.settings.data_dir / "toys"
    toy_files.mkdir()
    for toy in toys:
        (toy_files / str(toy.id)).touch()
    assert preview.preview(session, trusted("ann"), "ml-team").remaining == {"toys": 1}

    with session_scope(context.sessions) as other:
        deletion = requests.request_deletion(other, context, trusted("ann"), "ml-team").id
    for _ in range(10):
        run_slice(context, deletion, owner="test")

    assert rows_of(session, doomed_id) == {}
    assert session.scalars(select(Workspace.name).where(Workspace.id == doomed_id)).all() == []
    assert [path.name for path in toy_files.iterdir()] == [kept]
    assert rows_of(session, neighbour_id) == {"toys": 1}
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The product, with every step of the guide taken."""
    for name in ("app", "workers", "devstack", "migrations", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    for step in STEP.finditer(GUIDE):
        take(step, tmp_path)
    (tmp_path / "tests" / "cleanup" / "test_toys.py").write_text(TOY_TEST)
    return tmp_path


def take(step: re.Match[str], root: Path) -> None:
    if step["new"]:
        path = root / step["new"]
        assert not path.exists(), f"{path} is there already: mend the guide"
        path.write_text(step["code"])
        return
    path = root / step["old"]
    before, anchor, after = path.read_text().partition(f"\n{step['anchor']}")
    assert anchor, f"docs/extending.md: {step['old']} has no line that starts with {step['anchor']!r}"
    path.write_text(f"{before}\n{step['code']}{anchor[1:]}{after}")


def test_the_guide_leads_to_a_kind_that_every_check_accepts_and_that_is_deleted(copy: Path) -> None:
    assert len(STEP.findall(GUIDE)) == 13, "a step of the guide is not understood"

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("tests/cleanup/test_toys.py", "tests/cleanup/test_completeness.py"),
            *("tests/docs/test_guide.py", "tests/services/test_workspace_lock.py"),
            # The others are about migrations that are there already.
            *(f"tests/test_migrations.py::{test}" for test in OF_A_NEW_MIGRATION),
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
