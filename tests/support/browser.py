"""A browser without scripts: it keeps cookies, reads pages and sends the forms that are on them."""

import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


@dataclass
class Form:
    """A form of a page: where it goes, its fields with their values, and the words on its buttons."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    words: str = ""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select: str | None = None
        self._is_in_button = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        elif tag == "input" and self.forms:
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "select" and self.forms:
            self._select = given["name"]
        elif tag == "option" and self._select and self._select not in self.forms[-1].fields:
            self.forms[-1].fields[self._select] = given.get("value", "")
        self._is_in_button = tag == "button" and bool(self.forms)

    def handle_data(self, data: str) -> None:
        if self._is_in_button:
            self.forms[-1].words += data

    def handle_endtag(self, tag: str) -> None:
        self._is_in_button = False


@dataclass
class Browser:
    """Somebody at the console."""

    client: FlaskClient
    headers: dict[str, str]
    page: TestResponse | None = None
    address: str = ""

    def open(self, address: str, **headers: str) -> TestResponse:
        """Load a page."""
        self.page = self.client.get(address, headers=self.headers | headers)
        self.address = address
        return self.page

    @property
    def forms(self) -> list[Form]:
        """The forms of the page."""
        assert self.page is not None
        parser = _Forms()
        parser.feed(self.page.text)
        return parser.forms

    def form(self, action: str, words: str = "") -> Form:
        """The first form that goes to an address that ends like this, with these words on its button."""
        found = [
            one for one in self.forms if (one.action or self.address).endswith(action) and words in one.words
        ]
        assert found, f"no form to …{action} among {[one.action for one in self.forms]}"
        return found[0]

    def send(self, form: Form, /, **fields: str) -> TestResponse:
        """Fill in the form, send it, and follow to the page that says what has become of it."""
        answer = self.client.post(
            form.action or self.address, data=form.fields | fields, headers=self.headers
        )
        if answer.status_code != 303:
            self.page = answer
            return answer
        return self.open(answer.headers["Location"])

    @property
    def message(self) -> str:
        """The line on the page about what was done, or refused."""
        assert self.page is not None
        found = re.search(r'<p class="message (\w+)" role="status">(.*?)</p>', self.page.text, re.DOTALL)
        return f"{found[1]}: {unescape(found[2])}" if found else ""
