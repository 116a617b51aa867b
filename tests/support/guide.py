"""What docs/cleanup.md must say of states, moves and failures: made from the code, and compared line by line."""

import ast
import re
from collections.abc import Iterable, Iterator
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from app import cleanup, lifecycle
from app.config import Settings
from app.lifecycle import (
    DeletionMove,
    DeletionState,
    DeliveryMove,
    DeliveryStatus,
    DeploymentMove,
    DeploymentStatus,
    FailureClass,
    JobMove,
    JobStatus,
    Move,
    StepMove,
    WorkspaceMove,
    WorkspaceState,
)
from app.models import Deletion, Workspace
from tests.support.sources import parsed

Edges = set[tuple[str, str, str]]
"""From, label, to; `[*]` is before the first state and after the last."""

MACHINES: dict[str, tuple[type[StrEnum], tuple[type[Enum], ...]]] = {
    "Workspace": (WorkspaceState, (WorkspaceMove,)),
    "Deletion": (DeletionState, (DeletionMove,)),
    "Job": (JobStatus, (JobMove, StepMove)),
    "Deployment": (DeploymentStatus, (DeploymentMove,)),
    "Delivery": (DeliveryStatus, (DeliveryMove,)),
}
"""By heading in the guide: the states, and the moves between them."""

DRAWN = {"workspace": ("Workspace", Workspace), "deletion": ("Deletion", Deletion)}
"""The parts of the diagram, and the tables whose rows they are about."""

FAILURES = "Why a resource is still there"

REMEDY = (
    "docs/cleanup.md and app/lifecycle.py differ. Mend the one that is wrong: if it is the guide, take out the lines "
    "with - and put in those with +."
)


def moves_of(heading: str) -> list[tuple[str, Move[Any]]]:
    """The moves below a heading, with their names in the guide."""
    _, kinds = MACHINES[heading]
    return [(move.name.lower().replace("_", " "), move.value) for kind in kinds for move in kind]


def differences(text: str) -> list[str]:
    """What is wrong in the guide: lines to take out (-) and to put in (+), below which heading."""
    found = []
    for heading, expected in _tables().items():
        said = table_lines(text, heading)
        found += [f"{heading}: - {line}" for line in said if line not in expected]
        found += [f"{heading}: + {line}" for line in expected if line not in said]
        if not found and said != expected:
            found.append(f"{heading}: the same lines, in this order: {expected}")
    drawn = diagram(text)
    for part in DRAWN:
        found += [f"diagram of {part}: - {_arrow(edge)}" for edge in drawn.get(part, set()) - _edges(part)]
        found += [f"diagram of {part}: + {_arrow(edge)}" for edge in _edges(part) - drawn.get(part, set())]
    return found


def table_lines(text: str, heading: str) -> list[str]:
    """The lines of the tables below a heading, up to the next heading, without those under the column names."""
    [section] = re.findall(rf"^##+ {heading}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for line in section.splitlines() if line.startswith("|")]
    return [line for line in lines if not re.fullmatch(r"[|\- ]+", line)]


def first_cells(text: str, heading: str, column: str) -> list[str]:
    """What stands in backticks in the first column of the table below a heading whose column that is."""
    lines = table_lines(text, heading)
    ends = [at for at, line in enumerate(lines) if not line.startswith("| `")] + [len(lines)]
    [start] = [at for at, line in enumerate(lines) if line.startswith(f"| {column} |")]
    end = next(at for at in ends if at > start)
    return [name for line in lines[start + 1 : end] for name in re.findall("`(.+?)`", line.split("|")[1])]


def diagram(text: str) -> dict[str, Edges]:
    """The arrows of each part of the state diagram."""
    [drawing] = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    names = {alias: name for name, alias in re.findall(r'state "(\w+)" as (\w+)$', drawing, re.MULTILINE)}
    arrow = re.compile(r"^ +(\S+) --> ([^\s:]+)(?:: (.+))?$", re.MULTILINE)
    return {
        part: {
            (names.get(start, start), label, names.get(end, end)) for start, end, label in arrow.findall(body)
        }
        for part, body in re.findall(r'state "\w+" as (\w+) \{\n(.*?)\n    \}', drawing, re.DOTALL)
    }


def events() -> set[str]:
    """The events that the cleanup records: what is handed to `record`, or as `event` to what calls it."""
    calls = [
        node
        for path in Path(cleanup.__file__).parent.rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
    ]
    told = [call.args[2] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "record"]
    told += [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "event"]
    return {node.value for node in told if isinstance(node, ast.Constant)}


def _edges(part: str) -> Edges:
    heading, model = DRAWN[part]
    edges = {("[*]", "", model.__table__.c.state.default.arg.value)}
    for name, move in moves_of(heading):
        edges |= {(before.value, name, move.after.value if move.after else "[*]") for before in move.before}
    return edges


def _arrow(edge: tuple[str, str, str]) -> str:
    start, label, end = edge
    return f"{start} --> {end}: {label}" if label else f"{start} --> {end}"


@cache
def _tables() -> dict[str, list[str]]:
    made = {}
    for heading, (states, _) in MACHINES.items():
        moves = moves_of(heading)
        following = lifecycle.following(states, [move for _, move in moves])
        made[heading] = [
            _row("State", "Meaning", "Moves to"),
            *(_row(_code([one]), meaning(one), _code(_in_order(following[one]))) for one in states),
            _row("Move", "From", "To", "Who", "Only if"),
            *(
                _row(f"`{name}`", _code(move.before), _code([move.after]), move.by, move.only_if)
                for name, move in moves
            ),
        ]
    made[FAILURES] = [_row("Class", "Meaning", "What follows"), *_failures(Settings())]
    return made


def _failures(settings: Settings) -> Iterator[str]:
    longest = settings.waiting_poll_max_seconds
    waits = [min(settings.waiting_poll_min_seconds * 2**poll, longest) for poll in range(5)]
    follows = {
        FailureClass.WAITING: "If nothing else is left but permanent ones: look again after "
        f"{', '.join(f'{wait:g}' for wait in waits)} … s. "
        f"After {settings.waiting_limit_seconds / 60:g} min in the phase it counts as transient.",
        FailureClass.TRANSIENT: "The pass goes on with the others; without progress the deletion backs off. "
        f"A resource times out after {settings.item_timeout_seconds:g} s.",
        FailureClass.PERMANENT: "The others go on; when only these are left: FAILED at once.",
    }
    return (_row(_code([one]), meaning(one), follows[one]) for one in FailureClass)


def meaning(state: StrEnum) -> str:
    """The text behind `#:` where the state is defined."""
    source = Path(lifecycle.__file__).read_text()
    _, _, body = source.partition(f"class {type(state).__name__}(StrEnum):")
    found = re.search(rf'^    {state.name} = "{state.value}"  #: (.+)$', body, re.MULTILINE)
    assert found, f"say what {state!r} means, after `#:` in one line of app/lifecycle.py"
    return found[1]


def _in_order(states: Iterable[StrEnum]) -> list[StrEnum]:
    return sorted(states, key=lambda state: list(type(state)).index(state))


def _code(states: Iterable[StrEnum | None]) -> str:
    return ", ".join(f"`{state.value}`" if state else "the row is removed" for state in states)


def _row(*cells: str) -> str:
    return re.sub(r"  +", " ", f"| {' | '.join(cells)} |")
