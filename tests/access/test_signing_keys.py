"""The file with the keys that sign access keys: what it may be, and how its keys are replaced."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.access.keys.signing import signing_file_error
from app.context import Context
from tests.access.keys import KEYS, made, shown
from tests.support.access_keys import pem_of, write_signing_file
from tests.support.issuer import ec_key, rsa_key

OLD, NEW = rsa_key("signing"), rsa_key("next")


def client_of(context: Context, file: Path) -> FlaskClient:
    settings = context.settings.model_copy(update={"access_key_signing_file": str(file)})
    return create_app(replace(context, settings=settings)).test_client()


def test_a_new_key_signs_and_the_old_one_verifies_until_it_is_taken_away(
    context: Context, tmp_path: Path
) -> None:
    before = client_of(context, write_signing_file(tmp_path / "old.pem", OLD))
    during = client_of(context, write_signing_file(tmp_path / "both.pem", NEW, OLD))
    after = client_of(context, write_signing_file(tmp_path / "new.pem", NEW))
    old = made(before)

    new = made(during)

    assert [client.get(KEYS, headers=shown(old)).status_code for client in (before, during, after)] == [
        200,
        200,
        401,
    ]
    assert [client.get(KEYS, headers=shown(new)).status_code for client in (before, during, after)] == [
        401,
        200,
        200,
    ]
    published = [
        {key["kid"] for key in client.get("/apis/auth/jwks").json["keys"]} for client in (before, after)
    ]
    assert {key["kid"] for key in during.get("/apis/auth/jwks").json["keys"]} == published[0] | published[1]


def test_without_a_file_no_keys_are_published(context: Context) -> None:
    settings = context.settings.model_copy(
        update={"access_key_signing_file": "", "access_keys_enabled": False}
    )

    client = create_app(replace(context, settings=settings)).test_client()

    assert client.get("/apis/auth/jwks").json == {"keys": []}


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_its_owner_is_accepted(context: Context, tmp_path: Path, mode: int) -> None:
    file = write_signing_file(tmp_path / "keys.pem", OLD, mode=mode)

    assert (
        signing_file_error(context.settings.model_copy(update={"access_key_signing_file": str(file)})) is None
    )


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda file: file.unlink(), "cannot be read"),
    "readable by others": (lambda file: file.chmod(0o644), "chmod 600"),
    "writable by its group": (lambda file: file.chmod(0o660), "chmod 600"),
    "a pipe": (lambda file: (file.unlink(), os.mkfifo(file)), "is no file"),
    "empty": (lambda file: file.write_text(""), "openssl genrsa"),
    "damaged": (lambda file: file.write_text(pem_of(OLD).replace("MII", "XXX")), "damaged"),
    "of another sort": (lambda file: file.write_text(pem_of(ec_key("ec-1"))), "RSA"),
    "too short": (lambda file: file.write_text(pem_of(rsa_key("short", 1024))), "2048 bits"),
}


@pytest.mark.parametrize(("spoil", "why"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    context: Context, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    file = write_signing_file(tmp_path / "keys.pem", OLD)
    spoil(file)

    error = signing_file_error(context.settings.model_copy(update={"access_key_signing_file": str(file)}))

    assert error is not None
    assert error.startswith(f"WORKSPACES_ACCESS_KEY_SIGNING_FILE: {file}")
    assert why in error
    assert "\n" not in error
    assert "PRIVATE KEY-----" not in error
