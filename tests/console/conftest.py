"""The console has keys, and tests make cookies as the product of another time or with other keys would."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from pydantic import SecretStr
from sqlalchemy.orm import Session

from app.config import Settings
from app.console.cookies import Cookie
from app.context import Context
from tests.access.world import World, make_world
from tests.support.application import answering_from
from tests.support.browser import Browser
from tests.support.keys import KEY, OTHER_KEY, write_keys
from tests.support.people import GATEWAY_SECRET, OPERATOR, announced

Forge = Callable[..., str]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    keys = write_keys(tmp_path / "console-keys", KEY, OTHER_KEY)
    return settings.model_copy(update={"console_key_file": keys})


@pytest.fixture
def signed_at(context: Context) -> Forge:
    """Makes the value of a cookie that was signed some seconds ago, by any key."""

    def value(cookie: Cookie, content: Any, *, seconds_ago: int = 0, key: bytes = KEY) -> str:
        class PastSigner(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(time.time()) - seconds_ago

        serializer = URLSafeTimedSerializer(
            key,
            salt=f"{cookie.name} {context.settings.oidc_issuer}",
            signer=PastSigner,
            signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
        )
        return str(serializer.dumps(asdict(content) if hasattr(content, "token") else content))

    return value


def change(context: Context, **changed: object) -> None:
    """Have the context answer by other settings from now on."""
    object.__setattr__(context, "settings", context.settings.model_copy(update=changed))


@pytest.fixture
def console(context: Context) -> Context:
    """A context whose callers the gateway vouches for."""
    return replace(
        context,
        settings=context.settings.model_copy(
            update={
                "auth_enabled": True,
                "gateway_secret": SecretStr(GATEWAY_SECRET),
                "admin_email": OPERATOR,
            }
        ),
    )


@pytest.fixture
def world(session: Session, console: Context) -> World:
    """A workspace with one of everything, and two deletions of others."""
    return make_world(session, "ml-team")


@pytest.fixture
def sitting(console: Context) -> Callable[[str], Browser]:
    """Have somebody sit down at the console, by id."""

    def sit(who: str) -> Browser:
        return Browser(answering_from(console).test_client(), announced(who))

    return sit


@pytest.fixture
def operator(console: Context) -> Browser:
    """The platform's administrator at the console."""
    return Browser(answering_from(console).test_client(), announced("root", email=OPERATOR))
