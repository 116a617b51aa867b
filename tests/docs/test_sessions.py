"""Each procedure of the runbook was carried out, and its session is there."""

import re
from pathlib import Path

import pytest

from tests.docs.test_links import anchors

DOCS = Path(__file__).parents[2] / "docs"
RUNBOOK = (DOCS / "cleanup.md").read_text()
SESSIONS = (DOCS / "sessions.md").read_text()
LINKED = re.findall(r"^\|.*\]\(sessions\.md#([\w-]+)\) \|$", RUNBOOK, re.MULTILINE)
PROCEDURES = (
    "store-down", "store-lost", "host-gone", "database-failed-over", "broker-lost", "failed-with-20000-failures",
    "breaker-open", "restore-of-an-old-database-backup",
)  # fmt: skip
FAULTS = (
    "database down", "migrations missing", "broker down", "beat stopped", "no cleanup worker", "runtime full",
    "storage read-only", "storage not mounted", "another storage", "clock 31 s off",
)  # fmt: skip


def session(heading: str) -> str:
    """What stands below the heading of that anchor."""
    [found] = [
        one for one in re.split(r"^## ", SESSIONS, flags=re.MULTILINE)[1:] if heading in anchors(f"## {one}")
    ]
    return found


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_each_procedure_has_a_session_to_which_the_runbook_leads(procedure: str) -> None:
    assert procedure in LINKED, "Name it in the table of sessions of docs/cleanup.md."
    assert "```console\n$ " in session(procedure)


def test_the_runbook_leads_to_every_session() -> None:
    assert set(LINKED) == anchors(SESSIONS) - {"sessions"}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_answer_of_doctor_to_each_fault_is_there(fault: str) -> None:
    assert re.search(rf"^\$ workspaces doctor +# {fault}\n\w+ ", session("what-doctor-says"), re.MULTILINE)


@pytest.mark.parametrize("status", [0, 5, 6])
def test_each_end_of_a_wait_is_there(status: int) -> None:
    assert re.search(rf"--wait.*; echo \$\?\n(?:[^$\n].*\n)+{status}\n", session("waiting-for-a-deletion"))


def test_no_session_names_the_machine_that_it_was_on() -> None:
    assert re.findall(r"/tmp/|/work/|/root|/home/", SESSIONS) == []
