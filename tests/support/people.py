"""Callers as the gateway announces them, when authentication is on."""

from collections.abc import Sequence

GATEWAY_SECRET = "the-secret-of-the-gateway-in-tests"
OPERATOR = "operator@example.com"
"""Whom the settings of these tests name as the platform's administrator."""


def announced(principal: str, *, email: str = "", groups: Sequence[str] = (), **more: str) -> dict[str, str]:
    """The headers by which the gateway vouches for a principal; `more` are further X-NMP- headers."""
    headers = {"X-Workspaces-Gateway-Secret": GATEWAY_SECRET, "X-NMP-Principal-Id": principal}
    if email:
        headers["X-NMP-Principal-Email"] = email
    if groups:
        headers["X-NMP-Principal-Groups"] = ",".join(groups)
    return headers | {f"X-NMP-{name.replace('_', '-').title()}": value for name, value in more.items()}
