"""The settings of notifications: where they may go, and for how long they are tried."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from app.config.section import Section
from app.config.values import BaseUrl, Sender, SmtpUrl


class NotificationSettings(Section):
    """Webhooks and e-mail about deletions."""

    public_url: BaseUrl = ""
    """URL at which people reach the API, such as `https://workspaces.example.com`: links in notifications begin with
    it. Empty means links without a host."""
    webhooks_to_private_addresses: bool = False
    """Let webhooks go to private, loopback and link-local addresses, and to `http://` URLs. Otherwise an administrator
    of the platform could make the server call what only its network can reach."""
    webhook_timeout_seconds: Annotated[float, Field(gt=0, le=15)] = 5
    """How long one attempt of a webhook may take in all, the search for its address included."""
    notification_retry_days: Annotated[float, Field(gt=0, le=30)] = 3
    """How long a notification is tried before it is given up; its subscription is disabled then, if it was sent nothing
    else meanwhile."""
    notification_retention_days: Annotated[int, Field(ge=0, le=36500)] = 30
    """Age in days at which the record of a notification is removed, whatever became of it; 0 to keep all."""
    smtp_url: SmtpUrl = SecretStr("")
    """Server that takes the e-mails of subscriptions: `smtps://` with TLS from the start, `smtp+starttls://` with TLS
    before all else, or `smtp://` without, each with `user:password@` if it asks for them, which `smtp://` never gets.
    Empty means that there are no subscriptions by e-mail."""
    smtp_sender: Sender = ""
    """Address that those e-mails come from."""

    @model_validator(mode="after")
    def _keep_what_is_tried(self) -> Self:
        if 0 < self.notification_retention_days < self.notification_retry_days:
            raise ValueError(
                "notification_retention_days must be 0 or at least notification_retry_days: "
                "what has not been sent yet would be removed"
            )
        return self

    @model_validator(mode="after")
    def _have_a_sender(self) -> Self:
        if self.smtp_url.get_secret_value() and not self.smtp_sender:
            raise ValueError("smtp_url needs an smtp_sender: the address that e-mails come from")
        return self
