"""Cookies of the console: who may make one, how long it counts, and the message for the next page."""

from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from flask import Flask, Response

from app.console import cookies
from app.console.cookies import MESSAGE, SESSION, forget_message, message, say
from app.context import Context
from app.errors import Busy
from tests.console.conftest import Forge, change
from tests.support.keys import KEY, OTHER_KEY, write_keys

app = Flask("cookies")


@pytest.fixture(autouse=True)
def _request() -> Iterator[None]:
    with app.test_request_context("/console"):
        yield


def said(context: Context, text: str, **more: str) -> str:
    """The value of the cookie by which `text` is said."""
    response = Response()
    say(response, context, text, **more)
    return SimpleCookie(response.headers["Set-Cookie"])[MESSAGE.name].value


def message_of(context: Context, value: str, *, name: str = MESSAGE.name) -> tuple[str, str] | None:
    with app.test_request_context("/console", headers={"Cookie": f"{name}={value}"}):
        return message(context)


@pytest.mark.parametrize("kind", ["done", "refused"])
def test_a_message_reaches_the_next_page(context: Context, kind: str) -> None:
    value = said(context, "ml-team is being deleted; 3 <b>jobs</b> are ending.", kind=kind)

    assert message_of(context, value) == (kind, "ml-team is being deleted; 3 <b>jobs</b> are ending.")


def test_a_message_that_was_shown_is_removed(context: Context) -> None:
    response = Response()
    with app.test_request_context("/console", headers={"Cookie": f"{MESSAGE.name}={said(context, 'Done.')}"}):
        forget_message(response)

    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert "Path=/console" in response.headers["Set-Cookie"]


def test_a_page_without_a_message_removes_nothing() -> None:
    response = Response()
    forget_message(response)

    assert "Set-Cookie" not in response.headers


def test_a_message_of_any_length_fits_into_a_cookie(context: Context) -> None:
    value = said(context, "".join(chr(0x1F300 + n % 700) for n in range(5000)))

    kind, text = message_of(context, value)
    assert (kind, len(text), text[-1]) == ("done", cookies.MAX_MESSAGE_CHARS, "…")
    assert len(value) < 3800


def test_pages_and_scripts_of_others_neither_read_nor_send_a_cookie(context: Context) -> None:
    plain, safe = Response(), Response()
    say(plain, context, "Done.")
    with app.test_request_context("/console", base_url="https://localhost"):
        say(safe, context, "Done.")

    attributes = {one.strip() for one in plain.headers["Set-Cookie"].split(";")[1:]}
    assert attributes >= {"HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=60"}
    assert "Secure" not in attributes, "a browser would not keep it over http"
    assert "; Secure" in safe.headers["Set-Cookie"]


def test_nobody_but_us_can_make_or_change_a_message(context: Context, signed_at: Forge) -> None:
    ours = signed_at(MESSAGE, ["done", "Deleted."])
    content, _, rest = ours.partition(".")

    assert message_of(context, ours) == ("done", "Deleted.")
    for forged in (
        signed_at(MESSAGE, ["done", "Deleted."], key=b"x" * 32),
        f"{content[:-4]}AAAA.{rest}",
        ours[:-1],
        ours[:20],
        content,
        "",
        ".",
        "é",
    ):
        assert message_of(context, forged) is None, forged


def test_a_cookie_ends_in_its_time_whatever_the_browser_does(context: Context, signed_at: Forge) -> None:
    assert message_of(context, signed_at(MESSAGE, ["done", "x"], seconds_ago=55)) == ("done", "x")
    assert message_of(context, signed_at(MESSAGE, ["done", "x"], seconds_ago=70)) is None


def test_a_cookie_of_one_sort_is_none_of_another(context: Context, signed_at: Forge) -> None:
    assert message_of(context, signed_at(SESSION, ["done", "x"])) is None


def test_a_cookie_from_the_time_of_another_issuer_counts_no_more(context: Context) -> None:
    value = said(context, "Done.")
    change(context, oidc_issuer="https://login.example.com")

    assert message_of(context, value) is None


def test_the_first_key_signs_and_all_verify_without_a_restart(
    context: Context, signed_at: Forge, tmp_path: Path
) -> None:
    by_first, by_second = said(context, "first"), signed_at(MESSAGE, ["done", "second"], key=OTHER_KEY)
    assert message_of(context, by_second) == ("done", "second")

    write_keys(tmp_path / "console-keys", KEY)
    assert message_of(context, by_first) == ("done", "first")
    assert message_of(context, by_second) is None

    write_keys(tmp_path / "console-keys", OTHER_KEY)
    assert message_of(context, by_first) is None
    assert message_of(context, by_second) == ("done", "second")


def test_without_keys_nothing_is_said_and_the_setting_is_named(context: Context) -> None:
    value = said(context, "Done.")
    change(context, console_key_file="")

    assert message_of(context, value) is None
    with pytest.raises(Busy, match="WORKSPACES_CONSOLE_KEY_FILE"):
        said(context, "Done.")


def test_a_key_file_that_others_can_read_is_not_used(context: Context, tmp_path: Path) -> None:
    (tmp_path / "console-keys").chmod(0o644)

    with pytest.raises(Busy, match="WORKSPACES_CONSOLE_KEY_FILE") as refused:
        said(context, "Done.")
    assert str(tmp_path) not in str(refused.value), "where files are is the operator's to know"
