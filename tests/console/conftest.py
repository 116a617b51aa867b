"""The console has keys, and tests make cookies as the product of another time or with other keys would."""

import time
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from app.config import Settings
from app.console.cookies import Cookie
from app.context import Context
from tests.support.keys import KEY, OTHER_KEY, write_keys

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
