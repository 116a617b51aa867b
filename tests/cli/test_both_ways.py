"""What a command prints is the same, whether it asks a server or the database."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.cli import main
from app.lifecycle import JobStatus
from app.models import AuditRecord, CleanupControl, Deletion, DeletionFailure, Subscription
from tests import factories
from tests.cli.conftest import MakeFailed, Run
from tests.support.health import all_alive

MISSING = "0198c0de-0000-7000-8000-000000000000"

READS = [
    ("workspace", "list"),
    ("workspace", "list", "--filter", 'name~"team"', "--sort", "-created_at", "--limit", "1"),
    ("workspace", "get", "ml-team"),
    ("workspace", "get", "no-such"),
    ("workspace", "get", "not a name"),
    ("workspace", "delete", "ml-team", "--dry-run"),
    ("workspace", "delete", "no-such", "--dry-run"),
    ("workspace", "list", "--filter", "("),
    ("deletion", "list", "--all"),
    ("deletion", "list", "--state", "FAILED", "--class", "permanent"),
    ("deletion", "list", "--as-of", "2026-01-01T00:00:00Z"),
    ("deletion", "list", "--state", "FAILED", "--kind", "filesets", "--cause", "denied"),
    ("deletion", "list", "--cause", "denied"),
    ("deletion", "causes"),
    ("deletion", "get", "{failed}"),
    ("deletion", "get", MISSING),
    ("deletion", "events", "{failed}"),
    ("deletion", "wait", "{failed}"),
    ("deletion", "restore", "{failed}"),
    ("cleanup", "status"),
    ("runtime", "hosts"),
    ("runtime", "purge", "mistyped"),
    ("notify", "list"),
    ("notify", "get", "{webhook}"),
    ("notify", "get", MISSING),
    ("notify", "deliveries", "{webhook}"),
    ("notify", "redeliver", "{webhook}", MISSING),
    ("notify", "add", "ftp://example.com"),
]
"""Commands that change nothing, some of them because they are refused."""


@pytest.fixture
def failed(session: Session, make_failed: MakeFailed) -> Deletion:
    """Something of everything, and a FAILED deletion."""
    workspace = factories.make_workspace(session, "ml-team", description="of \x1b[31mthe team")
    factories.make_fileset(session, workspace)
    factories.make_job(session, workspace, "runs", JobStatus.ACTIVE, host="gpu-1")
    factories.make_workspace(session, "other-team")
    all_alive(session)
    factories.make_delivery(session, factories.make_webhook(session))
    return make_failed("stuck-team")


@pytest.mark.parametrize("format_", ["table", "json", "yaml", "name"])
@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_it_is_the_same_over_http_and_on_the_database(
    run: Run, server: str, session: Session, failed: Deletion, command: tuple[str, ...], format_: str
) -> None:
    webhook = session.scalars(select(Subscription.id)).one()
    typed = [one.format(failed=failed.id, webhook=webhook) for one in command]

    asked = run(*typed, "-o", format_, server=server)
    direct = run(*typed, "-o", format_)

    assert (asked.exit_code, asked.stdout) == (direct.exit_code, direct.stdout)
    assert as_said(asked.stderr) == as_said(direct.stderr)
    assert asked.stdout or asked.stderr
    if asked.exit_code == 0:
        parsed = {"json": json.loads, "yaml": yaml.safe_load}.get(format_, str)(asked.stdout)
        assert parsed
        assert "\x1b" not in asked.stdout


CHANGES = [
    ("workspace", "create", "new-{way}", "--description", "x"),
    ("workspace", "delete", "doomed-{way}", "--yes", "--reason", "ticket 7", "--grace", "1h"),
    ("deletion", "retry", "{id}"),
    ("deletion", "skip", "{id}", "--kind", "filesets", "--resource-id", "{resource}", "--reason", "7"),
    ("deletion", "force", "{id}", "--reason", "ticket 7"),
    ("cleanup", "pause"),
    ("cleanup", "resume"),
    ("runtime", "purge", "gone-{way}"),
    ("notify", "add", "https://hooks.example.com/", "--type", "deletion.failed"),
    ("notify", "update", "{webhook}", "--disable"),
    ("notify", "rotate", "{webhook}"),
    ("notify", "test", "{webhook}"),
    ("notify", "redeliver", "{webhook}", "{delivery}"),
]


@pytest.mark.parametrize("command", CHANGES, ids=" ".join)
def test_it_does_the_same_over_http_and_on_the_database(
    run: Run, server: str, session: Session, make_failed: MakeFailed, command: tuple[str, ...]
) -> None:
    def done(way: str, where: str) -> tuple[str, list[str]]:
        known = prepared(session, make_failed, way, is_paused=command[-1] == "resume")
        before = session.scalars(select(AuditRecord.id)).all()
        result = run(*(one.format(**known) for one in command), "-o", "json", server=where)
        assert result.exit_code == 0, result.output
        session.rollback()
        lines = session.execute(
            select(AuditRecord.event, AuditRecord.actor)
            .where(AuditRecord.id.not_in(before))
            .order_by(AuditRecord.id)
        ).all()
        assert {actor.partition("@")[0] for _, actor in lines} == {"" if where else "service:cli"}
        return as_said(result.stdout).replace(way, "WAY"), [event for event, _ in lines]

    asked, direct = done("far", server), done("near", "")

    assert asked == direct
    assert asked[1] != []


def prepared(session: Session, make_failed: MakeFailed, way: str, *, is_paused: bool) -> dict[str, str]:
    """What the commands above are about, by the names in their arguments."""
    doomed = factories.make_workspace(session, f"doomed-{way}")
    factories.make_job(session, doomed, "ran", JobStatus.ACTIVE, host=f"gone-{way}")
    session.execute(update(CleanupControl).values(paused=is_paused))
    failed = make_failed(f"stuck-{way}")
    [stuck] = session.scalars(
        select(DeletionFailure.resource_id).where(DeletionFailure.deletion_id == failed.id)
    )
    webhook = factories.make_webhook(session)
    sent = factories.make_delivery(session, webhook)
    session.commit()
    return {
        "way": way,
        "id": str(failed.id),
        "resource": stuck,
        "webhook": str(webhook.id),
        "delivery": str(sent.id),
    }


def as_said(text: str) -> str:
    """A text without what differs from one time to the next, and without the way that was taken."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME", text)
    text = re.sub(r"whsec_[A-Za-z0-9+/=]+", "SECRET", text)
    return re.sub(r"service:cli@[^\"]*", "", text).replace(" --direct", "")


def test_asking_a_server_needs_neither_a_database_nor_a_store(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's laptop has none of the settings of the processes."""
    result = CliRunner().invoke(main, ["workspace", "list", "--server", server])

    assert result.exit_code == 0
    assert "default" in result.stdout


def test_a_server_and_the_database_cannot_both_be_asked(run: Run, server: str) -> None:
    result = run("workspace", "list", "--direct", server=server)

    assert result.exit_code == 2
    assert "leave out --server" in result.stderr
