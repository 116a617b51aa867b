"""Encrypting all secrets anew: in chunks, whatever ends it, and by a command that says what is left."""

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, undefer

from app.cli.secrets import secrets as commands
from app.context import Context
from app.db import transact
from app.lifecycle import WorkspaceState
from app.models import AuditRecord, Secret, Subscription
from app.services.secrets import rotation
from app.services.secrets.encryption import PLATFORM, Keyring, Sealed
from tests.factories import make_secret, make_workspace
from tests.support.keys import KEY, OTHER_KEY, write_keys

OLD, NEW = Keyring([KEY]), Keyring([OTHER_KEY])
BOTH = Keyring([OTHER_KEY, KEY])


def under(session: Session, keys: Keyring) -> int:
    """How many secrets the first of these keys has encrypted."""
    session.rollback()
    return session.scalar(select(func.count()).where(Secret.key_id == keys.first)) or 0


def value_of(session: Session, keys: Keyring, name: str) -> str:
    session.rollback()
    query = select(Secret).where(Secret.name == name).options(undefer(Secret.ciphertext))
    secret = session.scalars(query, execution_options={"populate_existing": True}).one()
    return keys.open(
        Sealed(secret.key_id, secret.ciphertext),
        workspace_id=secret.workspace_id,
        secret_id=secret.id,
        name=name,
    )


@pytest.fixture
def secrets(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five secrets of two workspaces, one of which is being deleted, and may be restored; a chunk has two."""
    monkeypatch.setattr(rotation, "CHUNK", 2)
    kept, doomed = make_workspace(session), make_workspace(session, "doomed", state=WorkspaceState.DELETING)
    names = [f"token-{number}" for number in range(5)]
    for number, name in enumerate(names):
        make_secret(session, doomed if number == 3 else kept, name, f"value of {name}")
    session.commit()
    return names


def test_every_secret_is_encrypted_anew_in_chunks(
    session: Session, context: Context, secrets: list[str]
) -> None:
    sizes: list[int] = []

    def counted(work):
        before = under(session, NEW)
        done = transact(context.sessions, work)
        sizes.append(under(session, NEW) - before)
        return done

    assert rotation.rotate(counted, BOTH, "ann") == rotation.Rotation(5, {})

    assert [size for size in sizes if size] == [2, 2, 1]
    assert [value_of(session, NEW, name) for name in secrets] == [f"value of {name}" for name in secrets]
    [line] = session.scalars(select(AuditRecord).where(AuditRecord.event == "secrets.rotated"))
    assert (line.actor, line.detail) == ("ann", {"rotated": 5})


def test_what_signs_webhooks_is_encrypted_anew(session: Session, context: Context) -> None:
    webhook = Subscription(url="https://hooks.example.com/", types=["deletion.failed"], key_id=OLD.first)
    session.add(webhook)
    session.flush()
    place = {"workspace_id": PLATFORM, "secret_id": webhook.id}
    webhook.secret = OLD.seal("whsec_present", **place).ciphertext
    webhook.older_secret = OLD.seal("whsec_older", **place).ciphertext
    session.commit()

    assert rotation.rotate(partial(transact, context.sessions), BOTH, "ann") == rotation.Rotation(1, {})

    session.refresh(webhook, ["key_id", "secret", "older_secret"])
    assert webhook.key_id == NEW.first
    opened = [
        NEW.open(Sealed(NEW.first, one or b""), **place, name="ours")
        for one in (webhook.secret, webhook.older_secret)
    ]
    assert opened == ["whsec_present", "whsec_older"]
    webhook.key_id = "of nobody"
    session.commit()
    assert rotation.rotate(partial(transact, context.sessions), BOTH, "ann").left == {"of nobody": 1}


def test_one_that_was_ended_goes_on(session: Session, context: Context, secrets: list[str]) -> None:
    calls: list[int] = []

    def interrupted(work):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return transact(context.sessions, work)

    with pytest.raises(KeyboardInterrupt):
        rotation.rotate(interrupted, BOTH, "ann")
    assert under(session, NEW) == 2

    assert rotation.rotate(partial(transact, context.sessions), BOTH, "ann").rotated == 3
    assert under(session, OLD) == 0


def test_a_request_stops_when_its_time_is_over_and_says_what_is_left(
    session: Session, context: Context, secrets: list[str]
) -> None:
    done = rotation.rotate(partial(transact, context.sessions), BOTH, "ann", within_s=0)

    assert done == rotation.Rotation(0, {OLD.first: 5})


# --- the command


def rotate(context: Context, tmp_path: Path, *keys: bytes) -> Result:
    file = write_keys(tmp_path / "keys", *keys)
    settings = context.settings.model_copy(update={"secrets_key_file": file})
    object.__setattr__(context, "settings", settings)
    return CliRunner().invoke(commands, ["rotate"], obj=context)


def test_the_command_says_how_many_and_then_the_old_key_can_go(
    session: Session, context: Context, secrets: list[str], tmp_path: Path
) -> None:
    done = rotate(context, tmp_path, OTHER_KEY, KEY)

    assert (done.exit_code, done.output) == (0, f"encrypted anew by the key {NEW.first}: 5\n")
    again = rotate(context, tmp_path, OTHER_KEY)
    assert (again.exit_code, again.output) == (0, f"encrypted anew by the key {NEW.first}: 0\n")
    assert [value_of(session, NEW, name) for name in secrets] == [f"value of {name}" for name in secrets]


def test_the_command_tells_what_it_cannot_decrypt_and_why(
    session: Session, context: Context, secrets: list[str], tmp_path: Path
) -> None:
    session.execute(update(Secret).where(Secret.name == secrets[0]).values(ciphertext=b"damaged by somebody"))
    session.commit()

    damaged = rotate(context, tmp_path, OTHER_KEY, KEY)

    assert damaged.exit_code == 1
    assert damaged.output.splitlines() == [
        f"encrypted anew by the key {NEW.first}: 4",
        f"left: 1 that were encrypted by the key {OLD.first}, which does not decrypt them: give these secrets "
        "values anew",
    ]
    missing = rotate(context, tmp_path, OTHER_KEY)
    assert missing.exit_code == 1
    assert "which is not in the file: put it back behind the first" in missing.output


def test_the_command_without_keys_names_the_setting(context: Context) -> None:
    object.__setattr__(context, "settings", context.settings.model_copy(update={"secrets_key_file": ""}))

    done = CliRunner().invoke(commands, ["rotate"], obj=context)

    assert done.exit_code == 1
    assert "WORKSPACES_SECRETS_KEY_FILE" in done.output
