"""docs/access.md has the same table of roles as the code."""

import re
from pathlib import Path

from app.access.authenticate import GATEWAY_SECRET, Authenticator
from app.access.permissions import AUTHENTICATED, OPEN, TABLE, Permission
from app.access.roles import Role
from app.api.application import all_routes
from app.config import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "access.md").read_text()


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    head, *rows = [
        line.split("|")[1:-1] for line in PAGE.splitlines() if re.match(r"\| *(\||`\w+:\w+`)", line)
    ]
    roles = [Role(cell.strip()) for cell in head[1:]]
    documented = {
        (Permission(permission), role)
        for permissions, *cells in rows
        for permission in re.findall("`(.*?)`", permissions)
        for role, cell in zip(roles, cells, strict=True)
        if cell.strip() == "yes"
    }

    tabled = set(Permission) - AUTHENTICATED - OPEN
    assert set(roles) == set(Role)
    assert documented == {(permission, role) for role in Role for permission in TABLE[role] & tabled}, (
        "docs/access.md and app/access/permissions.py differ: mend the one that is wrong"
    )


def test_the_proxy_in_the_docs_sets_every_header_that_is_trusted_from_a_gateway() -> None:
    """A client that could add one header to the gateway's could take any identity."""
    [block] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "deploying.md").read_text(), re.S)
    set_headers = dict(re.findall(r"proxy_set_header (X-\S+) (.+?);", block))
    read: set[str] = set()

    def header(name: str, default: str) -> str:
        read.add(name)
        if name.startswith("X-NHX-"):
            return default
        return {GATEWAY_SECRET: "a" * 16, "X-NMP-Principal-Id": "service:any"}.get(name, default) or (
            "ann" if name.endswith("On-Behalf-Of") else default
        )

    settings = Settings(auth_enabled=True, gateway_secret="a" * 16)
    Authenticator(settings).principal(header)
    Authenticator(settings).principal(
        lambda name, default: default if "Behalf" in name else header(name, default)
    )

    assert read >= {
        f"X-{family}-{name}" for family in ("NMP", "NHX") for name in ("Scopes", "Principal-Groups")
    }
    assert read <= set_headers.keys(), (
        "the nginx of docs/deploying.md must set, or empty, each header that is trusted from a gateway"
    )


def test_the_proxy_in_the_docs_streams_files_and_buffers_everything_else() -> None:
    """Without its buffers each slow body would reach the server as slowly as it is sent."""
    [block] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "deploying.md").read_text(), re.S)
    location = re.compile(r"location ~? ?(\S+) \{(.*?)\n    \}", re.S)
    streamed = [path for path, rules in location.findall(block) if "buffering off" in rules]

    assert "buffering off" not in location.sub("", block)
    for route in all_routes():
        path = re.sub(r"<(?:\w+:)?\w+>", "x", route.rule)
        is_streamed = any(re.search(each, path) for each in streamed)
        if route.upload or route.media_type == "application/octet-stream":
            assert is_streamed, path
        assert route.is_transfer or not is_streamed, path


def test_the_runbook_says_who_asks_and_asks_for_all() -> None:
    """With a wrong identity a list of one's own is empty, which reads as "nothing has failed"."""
    runbook = (ROOT / "docs" / "cleanup.md").read_text()

    [proves] = re.findall(r"^api\(\) \{ (.*) \}", runbook, re.M)
    assert proves == 'curl -sS -H "$LOGIN" "$@";'
    assert runbook.count("curl") == 1, "use `api`, which proves who asks"
    lists = re.findall(r"\$D\?[^ \"]+", runbook + (ROOT / "docs" / "deploying.md").read_text())
    assert lists
    assert all("scope=all" in one for one in lists)
