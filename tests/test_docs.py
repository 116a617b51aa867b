"""The documentation says what the code does."""

import re
import subprocess
from enum import StrEnum
from pathlib import Path

import pytest

from app import lifecycle
from app.cleanup.kinds import ORDER
from app.dispatch import TaskName, cleanup_task
from app.lifecycle import (
    DEPLOYMENT_MOVES,
    JOB_MOVES,
    DeletionMove,
    DeletionState,
    FailureClass,
    WorkspaceMove,
    WorkspaceState,
    following,
)

ROOT = Path(__file__).parent.parent
CLEANUP = (ROOT / "docs" / "cleanup.md").read_text()
STATES = (WorkspaceState, DeletionState, FailureClass)


@pytest.mark.parametrize("state", [state for kind in STATES for state in kind], ids=str)
def test_every_state_of_a_deletion_is_in_the_guide(state: StrEnum) -> None:
    assert state.value in CLEANUP, f"docs/cleanup.md does not mention {state.value}"


def test_every_state_has_a_meaning_beside_it() -> None:
    source = Path(lifecycle.__file__).read_text()
    bare = re.findall(r'^    ([A-Z]+) = "[^"]+"(?!.*#: )', source, re.M)

    assert bare == [], "Say what the state means and who moves a row out of it, after `#:`."


@pytest.mark.parametrize(
    "moves",
    [
        JOB_MOVES,
        DEPLOYMENT_MOVES,
        following(WorkspaceState, [move.value for move in WorkspaceMove]),
        following(DeletionState, [move.value for move in DeletionMove]),
    ],
)
def test_moves_lead_from_every_state_to_known_states(moves) -> None:
    kind = type(next(iter(moves)))

    assert set(moves) == set(kind)
    assert all(state not in following for state, following in moves.items())


def test_the_kinds_are_in_the_guide_in_their_order() -> None:
    places = [CLEANUP.find(f"`{kind.name}`") for kind in ORDER]

    assert -1 not in places, f"docs/cleanup.md misses one of {[kind.name for kind in ORDER]}"
    assert places == sorted(places), "docs/cleanup.md names the kinds in another order than ORDER"


@pytest.mark.parametrize("task", [*(cleanup_task(kind.name) for kind in ORDER), *TaskName])
def test_every_task_that_operators_see_is_in_the_guide(task: str) -> None:
    short = task.removeprefix("workspace.cleanup")

    assert task in CLEANUP or f"`{short}`" in CLEANUP, f"docs/cleanup.md does not explain {task}"


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_no_path_of_a_developers_machine_is_in_the_project() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    places = re.compile(r"(?<![\w./-])/(?:home|Users|work|farm)/\w")
    found = {
        name
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file() and places.search((ROOT / name).read_text(errors="replace"))
    }

    assert found <= {"tests/test_docs.py"}
