"""Notifications by e-mail, to a real mail server."""

import socket

import pytest
from pydantic import SecretStr

from app.errors import BadRequest, WrongState
from app.lifecycle import DeliveryStatus
from app.notifications import addresses
from tests import factories
from tests.notifications.conftest import deliveries, the, with_settings
from tests.support.aging import age_everything


@pytest.fixture
def context(context, box):
    return with_settings(
        context,
        smtp_url=SecretStr(box.url),
        smtp_sender="workspaces@example.com",
        public_url="https://workspaces.example.com",
    )


@pytest.fixture
def workspace(session):
    made = factories.make_workspace(session)
    session.commit()
    return made


def test_an_e_mail_says_what_happened_and_where_to_look(
    session, box, subscribe, delete, finish, send, workspace
):
    ours = subscribe("mailto:ops@example.com")
    deletion_id = delete("ml-team")
    finish(deletion_id)

    assert send(ours) == "3 sent"

    requested, _, finished = box.mails
    assert requested["To"] == "ops@example.com"
    assert requested["From"] == "workspaces@example.com"
    assert requested["Subject"] == "Workspace ml-team: deletion.requested"
    link = f"https://workspaces.example.com/console/deletions/{deletion_id}"
    assert link in requested.get_content()
    assert "Requested by:  root" in requested.get_content()
    assert "it is gone" in finished.get_content()
    assert len({one["Message-ID"] for one in box.mails}) == 3
    assert ours.secret == ""


def test_a_mail_server_that_refuses_is_tried_again(session, box, subscribe, delete, send, workspace):
    ours = subscribe("mailto:ops@example.com")
    delete("ml-team")
    box.recipient_code = 450
    assert send(ours) == "0 sent; then: the mail server refuses the recipient"
    assert deliveries(session)[0].answer_code == 450
    box.recipient_code = 250
    age_everything(session, 60)
    send(ours)

    assert [one.status for one in deliveries(session)] == [DeliveryStatus.DELIVERED]
    assert len(box.mails) == 1
    assert the(session, ours).failures == 0


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_what_a_mail_server_has_accepted_is_delivered_whatever_it_says_to_quit(
    session, box, subscribe, delete, send, workspace, is_abrupt
):
    box.is_abrupt = is_abrupt
    ours = subscribe("mailto:ops@example.com")
    delete("ml-team")

    assert send(ours) == "1 sent"

    [sent] = deliveries(session)
    assert (sent.status, sent.answer_code, sent.error) == (DeliveryStatus.DELIVERED, 250, None)
    assert len(box.mails) == 1


def test_each_address_of_a_mail_server_is_tried(
    session, context, box, subscribe, delete, send, workspace, monkeypatch
):
    """Its name leads to ::1 first, where nobody listens."""
    real = socket.getaddrinfo

    def both(host, *arguments, **options):
        hosts = ["::1", "127.0.0.1"] if host == "mail.example" else [host]
        return [found for one in hosts for found in real(one, *arguments, **options)]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", both)
    url = SecretStr(box.url.replace("127.0.0.1", "mail.example"))
    ours = subscribe("mailto:ops@example.com")
    delete("ml-team")

    assert send(ours, of=with_settings(context, smtp_url=url)) == "1 sent"

    assert len(box.mails) == 1


def test_an_e_mail_needs_no_keys(context, subscribe):
    subscribe("mailto:ops@example.com", of=with_settings(context, secrets_key_file=""))


@pytest.mark.parametrize(
    "address",
    ["", "ops", "a@b.c,d@e.f", "ops@example.com?cc=eve@example.com", "ops@example.com\r\nBcc: x@y.z"],
)
def test_an_e_mail_goes_to_one_plain_address(subscribe, address):
    with pytest.raises(BadRequest, match="one address of e-mail"):
        subscribe(f"mailto:{address}")


def test_without_a_mail_server_nobody_subscribes_by_e_mail(context, subscribe):
    with pytest.raises(WrongState, match="WORKSPACES_SMTP_URL"):
        subscribe("mailto:ops@example.com", of=with_settings(context, smtp_url=SecretStr("")))


def test_the_password_of_the_mail_server_is_in_no_error(
    session, context, box, subscribe, delete, send, workspace
):
    """This one offers no login."""
    url = box.url.replace("smtp://", "smtp+starttls://relay:tell-nobody@")
    ours = subscribe("mailto:ops@example.com")
    delete("ml-team")

    answer = send(ours, of=with_settings(context, smtp_url=SecretStr(url)))

    assert "the mail server" in answer
    assert "tell-nobody" not in answer + str(deliveries(session)[0].error)
    assert box.mails == []
