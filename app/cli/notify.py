"""`workspaces notify`: who is notified of deletions, and what became of it."""

from typing import Any

import click

from app.cli.client.api import Api, items_of
from app.cli.client.consent import require_answer, require_terminal
from app.cli.client.options import with_api
from app.cli.client.output import fields, show_list, show_one, with_format
from app.cli.outcome import echo
from app.lifecycle import NotificationType

_WEBHOOKS = "/apis/entities/v2/webhooks"
_PAGE = 1000
_TYPES = [one.value for one in NotificationType if one is not NotificationType.TEST]
_ROW = fields("id", "url", "is_enabled", "failures", "last_success_at", "types")
_ALL = fields(
    *("id", "url", "types", "description", "is_enabled", "disabled_reason", "failures", "next_attempt_at"),
    *("last_success_at", "older_secret_until", "created_at", "created_by", "updated_at", "updated_by"),
)
_ISSUED = {**fields("secret"), **_ALL}
_DELIVERY = fields(
    "id", "type", "status", "created_at", "attempts", "answer_code", "next_attempt_at", "error"
)

_webhook_id = click.argument("webhook_id", metavar="ID", type=click.UUID)
_types = click.option("--type", "types", multiple=True, type=click.Choice(_TYPES), help="By default all.")


@click.group()
def notify() -> None:
    """Webhooks and e-mails about deletions."""


@notify.command("list")
@with_format
@with_api
def list_webhooks(api: Api, *, format_: str) -> None:
    """List who is notified, the newest first."""
    found = [item for item, _ in items_of(api, _WEBHOOKS, {}, limit=_PAGE, page_size=_PAGE)]
    show_list(format_, found, _ROW, name="id")


@notify.command()
@click.argument("url")
@_types
@click.option("--description", default="")
@with_format
@with_api
def add(api: Api, url: str, *, types: tuple[str, ...], description: str, format_: str) -> None:
    """Notify URL, https://… or mailto:ops@example.com, and show the secret by which it verifies what it gets, once."""
    body: dict[str, Any] = {"url": url, "description": description}
    if types:
        body["types"] = list(types)
    show_one(format_, api.ask("POST", _WEBHOOKS, body=body), _ISSUED, name="id")


@notify.command()
@_webhook_id
@with_format
@with_api
def get(api: Api, webhook_id: object, *, format_: str) -> None:
    """Show one, with the reason why it is disabled."""
    show_one(format_, api.ask("GET", f"{_WEBHOOKS}/{webhook_id}"), _ALL, name="id")


@notify.command()
@_webhook_id
@click.option("--url", help="Another URL of the same sort.")
@_types
@click.option("--description")
@click.option("--enable/--disable", "is_enabled", default=None, help="Send to it, or not.")
@with_format
@with_api
def update(
    api: Api, webhook_id: object, *, types: tuple[str, ...], format_: str, **change: str | bool | None
) -> None:
    """Change one: what it is notified of, where, and whether at all."""
    body = {**change, "types": list(types) or None}
    show_one(format_, api.ask("PATCH", f"{_WEBHOOKS}/{webhook_id}", body=body), _ALL, name="id")


@notify.command("rm")
@_webhook_id
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_api
def remove(api: Api, webhook_id: object, *, yes: bool) -> None:
    """Notify it no more, and remove the record of what was sent to it."""
    if not yes:
        require_terminal(f"to remove {webhook_id}")
        require_answer(f"remove {webhook_id}? Type yes", "yes")
    api.ask("DELETE", f"{_WEBHOOKS}/{webhook_id}")
    echo(f"removed: {webhook_id}")


@notify.command()
@_webhook_id
@with_format
@with_api
def rotate(api: Api, webhook_id: object, *, format_: str) -> None:
    """Give it another secret, which is shown once. For a day the one before signs, too."""
    rotated = api.ask("POST", f"{_WEBHOOKS}/{webhook_id}/rotate-secret")
    show_one(format_, rotated, _ISSUED, name="id")


@notify.command("test")
@_webhook_id
@with_format
@with_api
def send_test(api: Api, webhook_id: object, *, format_: str) -> None:
    """Send it a test; `notify deliveries` says what became of it."""
    show_one(format_, api.ask("POST", f"{_WEBHOOKS}/{webhook_id}/test"), _DELIVERY, name="id")


@notify.command()
@_webhook_id
@click.option("--limit", type=click.IntRange(1, _PAGE), default=20, show_default=True)
@with_format
@with_api
def deliveries(api: Api, webhook_id: object, *, limit: int, format_: str) -> None:
    """List what was sent to it and what is on its way, the newest first."""
    first: dict[str, str | int | float | None] = {"after": "", "page_size": limit}
    found = api.ask("GET", f"{_WEBHOOKS}/{webhook_id}/deliveries", first)["data"]
    show_list(format_, found, _DELIVERY, name="id")


@notify.command()
@_webhook_id
@click.argument("delivery_id", type=click.UUID)
@with_format
@with_api
def redeliver(api: Api, webhook_id: object, delivery_id: object, *, format_: str) -> None:
    """Send DELIVERY_ID again, with the same id, whatever became of it."""
    again = api.ask("POST", f"{_WEBHOOKS}/{webhook_id}/deliveries/{delivery_id}/redeliver")
    show_one(format_, again, _DELIVERY, name="id")
