"""The folder tree: what lies where, so that anybody finds it."""

from collections import Counter
from pathlib import Path

from app.api.application import all_routes

ROOT = Path(__file__).parent.parent
MOST_FILES = 16


def test_no_folder_of_the_product_is_too_wide_to_be_read() -> None:
    files = Counter(
        path.parent.relative_to(ROOT)
        for top in ("app", "workers", "devstack", "bench")
        for path in (ROOT / top).rglob("*.py")
    )
    wide = {str(folder): count for folder, count in files.items() if count > MOST_FILES}

    assert not wide, f"more than {MOST_FILES} files: {wide}; find the idea that deserves a folder of its own"


def test_a_route_is_declared_in_the_folder_named_by_the_first_segment_of_its_url() -> None:
    misplaced = {
        f"{route.method} {route.rule}": route.handler.__module__
        for route in all_routes()
        if route.handler.__module__.split(".")[:-1]
        != _folder(route.area, is_api=route.rule.startswith("/apis/"))
    }

    assert not misplaced, f"move each to app/api/<first segment after /apis/>/: {misplaced}"


def _folder(area: str, *, is_api: bool) -> list[str]:
    return ["app", "api", area.replace("-", "_")] if is_api else ["app", "api"]
