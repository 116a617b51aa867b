import pytest
from sqlalchemy.orm import Session

from tests.api.gadgets import create_gadgets


@pytest.fixture
def gadgets(session: Session) -> Session:
    """A session that sees the table of gadgets."""
    create_gadgets(session)
    return session
