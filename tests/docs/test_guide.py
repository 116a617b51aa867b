"""The documentation says what the code does."""

import re
import subprocess
from enum import StrEnum
from pathlib import Path

import pytest

from app import lifecycle
from app.cleanup.kinds import ORDER
from app.config import Settings
from app.dispatch import TaskName, cleanup_task
from app.lifecycle import DeletionState, FailureClass, WorkspaceState
from tests.support import guide

ROOT = Path(__file__).parents[2]
CLEANUP = (ROOT / "docs" / "cleanup.md").read_text()
STATES = (WorkspaceState, DeletionState, FailureClass)


@pytest.mark.parametrize("state", [state for kind in STATES for state in kind], ids=str)
def test_every_state_of_a_deletion_is_in_the_guide(state: StrEnum) -> None:
    assert state.value in CLEANUP, f"docs/cleanup.md does not mention {state.value}"


def test_every_state_has_a_meaning_beside_it() -> None:
    source = Path(lifecycle.__file__).read_text()
    bare = re.findall(r'^    ([A-Z]+) = "[^"]+"(?!.*#: )', source, re.M)

    assert bare == [], "Say what the state means and who moves a row out of it, after `#:`."


@pytest.mark.parametrize("heading", guide.MACHINES)
def test_moves_lead_from_known_states_to_others(heading: str) -> None:
    states, _ = guide.MACHINES[heading]
    moves = [move for _, move in guide.moves_of(heading)]

    assert {state for move in moves for state in move.before} <= set(states)
    assert all(move.before and move.after not in move.before for move in moves)


def test_the_guide_has_the_states_and_moves_of_the_code() -> None:
    found = guide.differences(CLEANUP)

    assert not found, "\n".join([guide.REMEDY, *found])


@pytest.mark.parametrize("heading", [*guide.MACHINES, guide.FAILURES])
def test_a_row_that_is_missing_or_said_otherwise_is_noticed(heading: str) -> None:
    before, title, after = CLEANUP.partition(f"### {heading}\n")
    unnoticed = []
    for row in guide.table_lines(CLEANUP, heading):
        cells = row.split("|")[1:-1]
        otherwise = ([*cells[:at], " otherwise ", *cells[at + 1 :]] for at in range(len(cells)))
        for put in ("", *(f"|{'|'.join(one)}|\n" for one in otherwise)):
            falsified = before + title + after.replace(row + "\n", put, 1)
            if not guide.differences(falsified):
                unnoticed.append((row, put))

    assert unnoticed == []


def test_an_arrow_that_is_missing_turned_or_named_otherwise_is_noticed() -> None:
    arrows = re.findall(r"^ +(\S+) --> ([^\s:]+)(:.*)?$", CLEANUP, re.MULTILINE)
    falsified = {(start, end, label): (f"{end} --> {start}{label}", "") for start, end, label in arrows}
    falsified |= {arrow: (*put, f"{arrow[0]} --> {arrow[1]}: otherwise") for arrow, put in falsified.items()}
    unnoticed = [
        (start, end, put)
        for (start, end, label), puts in falsified.items()
        for put in puts
        if not guide.differences(CLEANUP.replace(f" {start} --> {end}{label}\n", f" {put}\n", 1))
    ]

    assert len(arrows) == sum(len(edges) for edges in guide.diagram(CLEANUP).values()) > 0
    assert unnoticed == []


def test_the_kinds_are_in_the_guide_in_their_order() -> None:
    told = guide.first_cells(CLEANUP, "The order", "Kind")

    assert told == [kind.name for kind in ORDER], (
        "docs/cleanup.md, 'The order', must have a row for each kind of ORDER, in that order"
    )


def test_the_size_of_a_chunk_is_in_the_guide() -> None:
    sizes = re.findall(r"rows, (\d+) at a time", CLEANUP)

    assert set(sizes) == {str(Settings().chunk_size)}, "docs/cleanup.md, 'The order': see Settings.chunk_size"


def test_every_task_that_operators_see_is_in_the_guide() -> None:
    told = guide.first_cells(CLEANUP, "What Flower shows", "Task")

    assert sorted(told) == sorted([*(cleanup_task(kind.name) for kind in ORDER), *TaskName]), (
        "docs/cleanup.md, 'What Flower shows', must have a row for each task, and for nothing else"
    )


def test_every_event_of_a_history_is_in_the_guide() -> None:
    told = guide.first_cells(CLEANUP, "Events", "Event")

    assert sorted(told) == sorted(guide.events()), (
        "docs/cleanup.md, 'Events', must have a row for each event that app/cleanup records, and for nothing else"
    )


@pytest.mark.needs("git", package="git")
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

    assert found <= {"tests/docs/test_guide.py"}
