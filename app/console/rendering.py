"""From values to the text of a page: the templates, how times and numbers are written, and the files beside them."""

import shlex
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from jinja2 import DictLoader, Environment, StrictUndefined
from werkzeug.exceptions import NotFound

from app.clock import now as process_now
from app.http.headers import STRICT_POLICY

_HERE = Path(__file__).parent
_STATIC, _TEMPLATES = _HERE / "static", _HERE / "templates"
STATIC = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir())}
"""The files that the pages use, all of them ours or kept with their licence: no page asks another server."""

_VERSIONS = {name: sha256(content).hexdigest()[:16] for name, content in STATIC.items()}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}

POLICY = (
    f"{STRICT_POLICY}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'"
)
"""The Content-Security-Policy of the pages: no script and no style but those of the files."""

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def render(template: str, **values: Any) -> str:
    """The text of a template. What is in `values` is escaped."""
    return _environment.get_template(template).render(now=values.pop("now", None) or process_now(), **values)


def notice(title: str, text: str, status: int, *, go_to: str = "") -> Response:
    """A page of one sentence; the browser goes on by itself if there is somewhere to go."""
    return html(
        render("notice.html", visitor=None, message=None, path="", title=title, text=text, go_to=go_to),
        status,
    )


def html(text: str, status: int) -> Response:
    """An answer that browsers show, and that runs nothing but our files."""
    return Response(text, status, mimetype="text/html", headers={"Content-Security-Policy": POLICY})


def register(app: Flask) -> None:
    """Serve the files beside the pages."""

    @app.get("/console/static/<name>", endpoint="console.static")
    def serve(name: str) -> Response:
        if name not in STATIC:
            raise NotFound
        response = Response(STATIC[name], mimetype=_TYPES[Path(name).suffix])
        # Its address has its version, so that a newer one has another.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.set_etag(_VERSIONS[name])
        response.make_conditional(request)
        return response


def address_of(name: str) -> str:
    """Where a file is, with its version."""
    return f"/console/static/{name}?v={_VERSIONS[name]}"


def span(seconds: float) -> str:
    """A length of time in its two largest units, such as `3 h 20 min`."""
    left, parts = max(round(seconds), 0), list[str]()
    for unit, length in _UNITS:
        if left >= length or (unit == "s" and not parts):
            parts.append(f"{left // length} {unit}")
            left %= length
        elif parts:
            break
    return " ".join(parts[:2])


def ago(time: datetime | None, now: datetime) -> str:
    """How long ago a time was, or in how long it will be."""
    if time is None:
        return "never"
    seconds = (now - time).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def stamp(time: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def count(number: int) -> str:
    """A number with thin gaps between its thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def words(value: Any) -> str:
    """A detail of an event as it is read: `held: entities 40, filesets 3; reason: …`."""
    if isinstance(value, dict):
        return "; ".join(
            f"{str(key).replace('_', ' ')}: {_inner(one)}" for key, one in value.items() if one is not None
        )
    return _inner(value)


def _inner(value: Any) -> str:
    if isinstance(value, dict):
        return (
            ", ".join(f"{str(key).replace('_', ' ')} {_inner(one)}" for key, one in value.items())
            or "nothing"
        )
    return ", ".join(map(_inner, value)) if isinstance(value, list) else str(value)


def size(number: float) -> str:
    """A number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _made() -> Environment:
    environment = Environment(
        # Read with the code that fills them in: what is installed over a running process must not be mixed with it.
        loader=DictLoader({path.name: path.read_text() for path in sorted(_TEMPLATES.iterdir())}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": ago,
        "stamp": stamp,
        "count": count,
        "size": size,
        "span": span,
        "words": words,
        "quoted": shlex.quote,
    }
    environment.globals |= {"file": address_of, "timedelta": timedelta}
    return environment


_environment = _made()
