"""What a server of an issuer answers, with and without TLS: taken in time, or given up."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from app.access.exchange import fetch
from tests.support.certificates import make_certificate
from tests.support.deadlines import DEADLINE_S
from tests.support.issuer import LocalIssuer


@pytest.fixture(params=["http", "https"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalIssuer]:
    file = tmp_path / "certificate.pem"
    tls = make_certificate(file) if request.param == "https" else None
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with LocalIssuer(tls=tls) as one:
        yield one


def test_an_answer_is_taken(server: LocalIssuer) -> None:
    assert fetch(f"{server.url}/keys", timeout_s=DEADLINE_S) == server.answer("/keys")


@pytest.mark.parametrize("part", ["header", "body"])
def test_an_answer_that_trickles_is_given_up(server: LocalIssuer, part: Literal["header", "body"]) -> None:
    """Each byte comes in time for a time-out that begins anew."""
    server.trickling = part

    with pytest.raises(OSError, match="timed out"):
        fetch(f"{server.url}/keys", timeout_s=0.3)
    assert not server.was_waited_for
