"""Every test here has authentication on."""

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from tests.access.world import World, make_world
from tests.support.database import remember, restore
from tests.support.people import GATEWAY_SECRET, OPERATOR


@pytest.fixture
def settings(settings: Settings, signing_file: str) -> Settings:
    return settings.model_copy(
        update={
            "auth_enabled": True,
            "gateway_secret": SecretStr(GATEWAY_SECRET),
            "admin_email": OPERATOR,
            "access_keys_enabled": True,
            "access_key_signing_file": signing_file,
            "subprocess_provider": "on",  # for jobs and deployments to be accepted at all
        }
    )


@pytest.fixture(scope="session")
def _world(engine: Engine) -> World:
    """Its rows are made once, because hundreds of tests begin with them."""
    restore(engine)
    with Session(engine, expire_on_commit=False) as session:
        world = make_world(session, "ml-team")
    remember(engine, "world")
    return world


@pytest.fixture
def world(_world: World, context: Context) -> World:
    """A workspace with one of everything."""
    restore(context.sessions.kw["bind"], "world")
    _world.publish_file(context.store)
    return _world
