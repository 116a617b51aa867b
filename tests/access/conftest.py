"""Every test here has authentication on."""

import pytest
from pydantic import SecretStr

from app.config import Settings
from tests.support.people import GATEWAY_SECRET, OPERATOR


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "auth_enabled": True,
            "gateway_secret": SecretStr(GATEWAY_SECRET),
            "admin_email": OPERATOR,
            "subprocess_provider": "on",  # for jobs and deployments to be accepted at all
        }
    )
