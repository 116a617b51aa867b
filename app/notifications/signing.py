"""The secrets of webhooks: they sign what is sent, and are kept encrypted by the keys of all secrets."""

import base64
import secrets
from datetime import datetime
from uuid import UUID

from standardwebhooks import Webhook

from app.models import Delivery, Subscription
from app.services.secrets.encryption import PLATFORM, Keyring, Sealed

_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def seal_secret(keys: Keyring, subscription_id: UUID, secret: str) -> Sealed:
    """A secret of a subscription, encrypted by the first key."""
    return keys.seal(secret, workspace_id=PLATFORM, secret_id=subscription_id)


def open_secret(keys: Keyring, subscription: Subscription, ciphertext: bytes) -> str:
    """A secret of a subscription. Raises SecretUnreadable."""
    name = f"webhook {subscription.id}"
    sealed = Sealed(subscription.key_id or "", ciphertext)
    return keys.open(sealed, workspace_id=PLATFORM, secret_id=subscription.id, name=name)


def secrets_in_force(keys: Keyring, subscription: Subscription, *, is_older_valid: bool) -> list[str]:
    """The secrets that sign: the present one, and the one before it while receivers may still have that.

    Raises SecretUnreadable.
    """
    ciphertexts = [subscription.secret, subscription.older_secret if is_older_valid else None]
    return [open_secret(keys, subscription, one) for one in ciphertexts if one]


def signed_headers(signing: list[str], delivery: Delivery, body: str, *, at: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks, with a signature by each secret."""
    message_id = f"msg_{delivery.id.hex}"
    signatures = [Webhook(one).sign(message_id, at, body) for one in signing]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
