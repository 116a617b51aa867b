"""E-mail by TLS: from the first byte on, or after STARTTLS, and to no server that never ends its handshake."""

import socket
import threading
from contextlib import contextmanager
from email.message import EmailMessage

import pytest
from pydantic import SecretStr

from app.notifications.attempt import AttemptFailed, Deadline
from app.notifications.connecting import connected, tls
from app.notifications.mail import send_mail
from tests.notifications.certificate import server_tls
from tests.notifications.conftest import with_settings
from tests.notifications.receiver import mailbox
from tests.support.deadlines import DEADLINE_S

SCHEMES = pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])


@pytest.fixture
def message():
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "workspaces@example.com", "ops@example.com", "It is gone"
    made.set_content("Nothing is left.")
    return made


@pytest.fixture
def server(tmp_path):
    return server_tls(tmp_path / "server.pem")


@pytest.fixture
def trusted(tmp_path, server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    tls.cache_clear()
    yield
    tls.cache_clear()


def settings_for(context, scheme, port):
    url = SecretStr(f"{scheme}://localhost:{port}")
    return with_settings(context, smtp_url=url, smtp_sender="workspaces@example.com").settings


@SCHEMES
@pytest.mark.usefixtures("trusted")
def test_an_e_mail_goes_by_tls(context, message, server, scheme):
    with mailbox(server, is_tls_first=scheme == "smtps") as box:
        assert send_mail(settings_for(context, scheme, box.url.rpartition(":")[2]), message) == 250

    assert (len(box.mails), box.protected) == (1, 1)


@SCHEMES
def test_a_mail_server_with_a_certificate_of_nobody_gets_nothing(context, message, server, scheme):
    with (
        mailbox(server, is_tls_first=scheme == "smtps") as box,
        pytest.raises(AttemptFailed, match="SSLCertVerificationError"),
    ):
        send_mail(settings_for(context, scheme, box.url.rpartition(":")[2]), message)

    assert box.mails == []


@pytest.mark.parametrize(
    ("scheme", "answers"),
    [
        ("smtps", []),
        ("smtp+starttls", [b"220 ready\r\n", b"250-fine\r\n250 STARTTLS\r\n", b"220 go ahead\r\n"]),
    ],
)
def test_a_mail_server_that_never_ends_its_handshake_is_given_up(context, message, scheme, answers):
    with trickling_handshake(answers) as (port, client_has_left):
        with pytest.raises(AttemptFailed, match=r"no answer of the mail server within 0\.5 s"):
            send_mail(settings_for(context, scheme, port), message, within_s=0.5)

        assert client_has_left.wait(DEADLINE_S)


def test_the_deadline_ends_a_handshake_that_no_time_out_would():
    """That of the socket begins anew with the handshake."""
    deadline = Deadline.after(0.5)
    with trickling_handshake([]) as (port, client_has_left):
        with connected(["127.0.0.1"], port, deadline) as opened:
            opened.settimeout(None)
            with pytest.raises(OSError, match=r"EOF|reset|shut"):
                tls().wrap_socket(opened, server_hostname="localhost")

        assert client_has_left.wait(DEADLINE_S)
    assert deadline.is_over


@contextmanager
def trickling_handshake(answers):
    """A mail server that gives these answers, and then byte after byte of a handshake for as long as tests wait."""
    client_has_left, never = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                try:
                    for number, answer in enumerate(answers):
                        if number:
                            connection.recv(1024)
                        connection.sendall(answer)
                    connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of so many bytes
                    for _ in range(int(DEADLINE_S / 0.05)):
                        never.wait(0.05)
                        connection.sendall(b"\0")
                except OSError:
                    client_has_left.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], client_has_left
        thread.join()
