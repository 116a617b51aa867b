"""The identity headers of a gateway: when they are trusted, and for what."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.access.authenticate import Authenticator
from app.access.principal import Principal
from app.config import Settings
from app.errors import BadRequest, Forbidden, Unauthorized
from tests.support.people import GATEWAY_SECRET, OPERATOR, announced

W = "/apis/entities/v2/workspaces"


def principal(settings: Settings, headers: dict[str, str]) -> Principal:
    return Authenticator(settings).principal(headers.get)


def test_the_gateway_names_the_caller(settings: Settings) -> None:
    ann = principal(settings, announced("ann", email="ann@example.com", groups=["crew", " deck "]))

    assert ann == Principal("ann", "ann@example.com", frozenset({"crew", "deck"}))
    assert ann.identities == {"ann", "ann@example.com", "crew", "deck", "*"}


def test_the_gateway_outranks_a_token(settings: Settings) -> None:
    headers = announced("ann") | {"Authorization": "Bearer rubbish"}

    assert principal(settings, headers).id == "ann"


def test_without_a_secret_in_the_settings_there_is_no_gateway(settings: Settings) -> None:
    none = settings.model_copy(update={"gateway_secret": type(settings.gateway_secret)("")})

    for secret in ("", " ", GATEWAY_SECRET):
        with pytest.raises(Unauthorized):
            principal(none, {"X-Workspaces-Gateway-Secret": secret, "X-NMP-Principal-Id": "ann"})


@pytest.mark.parametrize(
    "secret", ["", "x", GATEWAY_SECRET + "x", GATEWAY_SECRET[:-1], "é", GATEWAY_SECRET.upper()]
)
def test_any_other_secret_is_refused(settings: Settings, secret: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        principal(settings, {"X-Workspaces-Gateway-Secret": secret, "X-NMP-Principal-Id": "ann"})

    assert "secret" in refused.value.message
    assert GATEWAY_SECRET not in refused.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-NMP-Principal-Id", "ann smith"),
        ("X-NMP-Principal-Id", "ann\n"),
        ("X-NMP-Principal-Id", "a" * 257),
        ("X-NMP-Principal-Id", "änn"),
        ("X-NMP-Principal-Email", "a" * 321),
        ("X-NMP-Principal-Email", "ann@example.com\t"),
        ("X-NMP-Principal-Groups", ",".join(f"g{n}" for n in range(101))),
        ("X-NMP-Principal-Groups", "g" * 257),
        ("X-NMP-Scopes", "workspaces.read"),
    ],
)
def test_a_malformed_header_is_named(settings: Settings, name: str, value: str) -> None:
    with pytest.raises(BadRequest) as refused:
        principal(settings, announced("ann") | {name: value})

    assert name in refused.value.message or "Invalid scope 'workspaces.read'" in refused.value.message


def test_a_service_may_do_everything_or_what_the_user_may_in_whose_name_it_acts(client: FlaskClient) -> None:
    client.post(W, json={"name": "anns"}, headers=announced("ann"))
    client.post(W, json={"name": "bobs"}, headers=announced("bob"))

    def seen(headers: dict[str, Any]) -> set[str]:
        return {one["name"] for one in client.get(W, headers=headers).json["data"]}

    service, for_ann = announced("service:jobs"), announced("service:jobs", principal_on_behalf_of="ann")
    assert seen(service) == {"anns", "bobs", "default", "system"}
    assert seen(for_ann) == {"anns", "default", "system"}
    assert client.get(f"{W}/bobs", headers=service).status_code == 200
    assert client.get(f"{W}/bobs", headers=for_ann).status_code == 403
    made = client.post(f"{W}/anns/projects", json={"name": "alpha"}, headers=for_ann)
    assert (made.status_code, made.json["created_by"]) == (201, "ann")


def test_the_user_in_whose_name_a_service_acts_has_an_email_and_groups(settings: Settings) -> None:
    headers = announced("service:jobs", email=OPERATOR) | {
        "X-NMP-Principal-On-Behalf-Of": "ann",
        "X-NMP-Principal-On-Behalf-Of-Email": "ann@example.com",
        "X-NMP-Principal-On-Behalf-Of-Groups": "crew",
    }

    ann = Principal("ann", "ann@example.com", frozenset({"crew"}), service="service:jobs")
    assert principal(settings, headers) == ann


def test_a_user_cannot_act_in_the_name_of_another_nor_anybody_in_that_of_a_service(
    settings: Settings,
) -> None:
    for caller, named in (("ann", "bob"), ("ann", "service:jobs"), ("service:jobs", "service:files")):
        with pytest.raises(Forbidden):
            principal(settings, announced(caller, principal_on_behalf_of=named))


def test_nobody_acts_in_the_name_of_another_without_a_name_of_its_own(settings: Settings) -> None:
    headers = announced("") | {"X-NMP-Principal-On-Behalf-Of": "bob", "Authorization": "Bearer rubbish"}

    with pytest.raises(BadRequest) as refused:
        principal(settings, headers)

    assert "needs X-NMP-Principal-Id" in refused.value.message


@pytest.mark.parametrize(
    "delegation",
    [
        {"X-NMP-Principal-On-Behalf-Of": ""},
        {"X-NMP-Principal-On-Behalf-Of": "  "},
        {"X-NMP-Principal-On-Behalf-Of-Email": "ann@example.com"},
        {"X-NMP-Principal-On-Behalf-Of-Groups": "crew"},
        {"X-NMP-Principal-On-Behalf-Of": "", "X-NMP-Principal-On-Behalf-Of-Email": "ann@example.com"},
    ],
    ids=str,
)
@pytest.mark.parametrize("caller", ["service:jobs", "ann", ""])
def test_nobody_acts_in_the_name_of_nobody(
    settings: Settings, caller: str, delegation: dict[str, str]
) -> None:
    """A service that forwards an anonymous user would otherwise be almighty."""
    with pytest.raises(BadRequest):
        principal(settings, announced(caller) | delegation)


def test_the_settings_say_which_services_there_are(settings: Settings) -> None:
    known = settings.model_copy(update={"services": ("jobs", "files")})

    assert principal(settings, announced("service:me")).is_platform_admin
    assert principal(known, announced("service:jobs")).is_platform_admin
    for headers in (announced("service:me"), announced("service:me", principal_on_behalf_of="ann")):
        with pytest.raises(Forbidden, match="WORKSPACES_SERVICES"):
            principal(known, headers)


def test_the_operator_is_known_by_the_email_and_by_nothing_else(settings: Settings) -> None:
    assert principal(settings, announced("x", email=OPERATOR)).is_platform_admin
    assert not principal(settings, announced(OPERATOR)).is_platform_admin
    assert not principal(settings, announced("x", groups=[OPERATOR])).is_platform_admin
    nameless = settings.model_copy(update={"admin_email": ""})
    assert not principal(nameless, announced("x")).is_platform_admin


def test_the_scopes_from_the_gateway_restrict_the_caller(client: FlaskClient) -> None:
    client.post(W, json={"name": "anns"}, headers=announced("ann"))
    reading = announced("ann", scopes="entities:read")

    assert client.get(f"{W}/anns", headers=reading).status_code == 200
    assert client.put(f"{W}/anns", json={"description": "x"}, headers=reading).status_code == 403
    assert client.delete(f"{W}/anns", headers=reading).status_code == 403


def test_with_authentication_off_the_header_only_gives_a_name(settings: Settings) -> None:
    off = settings.model_copy(update={"auth_enabled": False})

    assert principal(off, {"X-NMP-Principal-Id": "ann"}) == Principal("ann", is_platform_admin=True)
    assert principal(off, {"Authorization": "Bearer rubbish"}) == Principal("", is_platform_admin=True)
    with pytest.raises(BadRequest):
        principal(off, {"X-NMP-Principal-Id": "ann smith"})


def as_helix(headers: dict[str, str]) -> dict[str, str]:
    """The same headers in the other family."""
    return {name.replace("X-NMP-", "X-NHX-"): value for name, value in headers.items()}


class TestFamilies:
    """The setting says which headers the gateway sends; those of the other family are only a client's."""

    @pytest.fixture
    def helix(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"gateway_headers": "nhx"})

    def test_the_setting_chooses_one(self, settings: Settings, helix: Settings) -> None:
        ann = announced("service:jobs", scopes="jobs:read", principal_on_behalf_of="ann")

        assert principal(settings, ann) == principal(helix, as_helix(ann))
        assert principal(helix, as_helix(announced("x", email=OPERATOR, groups=["crew"]))).is_platform_admin

    @pytest.mark.parametrize("suffix", ["Id", "Email", "Groups", "On-Behalf-Of", "On-Behalf-Of-Email"])
    @pytest.mark.parametrize("value", ["ann", ""])
    def test_one_of_the_other_is_refused_in_a_vouched_request(
        self, settings: Settings, helix: Settings, suffix: str, value: str
    ) -> None:
        """A gateway that lets it through lets clients say who they are."""
        for one, vouched, foreign in (
            (settings, announced("ben"), f"X-NHX-Principal-{suffix}"),
            (helix, as_helix(announced("ben")), f"X-NMP-Principal-{suffix}"),
        ):
            with pytest.raises(BadRequest, match=foreign):
                principal(one, vouched | {foreign: value})

    def test_so_are_foreign_scopes_and_a_gateway_that_speaks_the_other_alone(
        self, settings: Settings, helix: Settings
    ) -> None:
        for headers in (announced("ben") | {"X-NHX-Scopes": "jobs:read"}, as_helix(announced("ben"))):
            with pytest.raises(BadRequest, match="WORKSPACES_GATEWAY_HEADERS"):
                principal(settings, headers)
        with pytest.raises(BadRequest, match="WORKSPACES_GATEWAY_HEADERS"):
            principal(helix, announced("ben"))

    def test_without_the_secret_neither_proves_anything(self, settings: Settings, helix: Settings) -> None:
        for one in (settings, helix):
            for name in ("X-NMP-Principal-Id", "X-NHX-Principal-Id"):
                with pytest.raises(Unauthorized):
                    principal(one, {name: "ann"})

    def test_with_authentication_off_one_of_them_gives_a_name(self, helix: Settings) -> None:
        off = helix.model_copy(update={"auth_enabled": False})

        headers = {"X-NHX-Principal-Id": "ann", "X-NMP-Principal-Id": "ben"}
        assert principal(off, headers) == Principal("ann", is_platform_admin=True)
