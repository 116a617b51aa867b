import re
import tomllib
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.devstack.stacks import REPOSITORY


def test_everything_that_is_installed_for_the_project_is_pinned() -> None:
    pins = {canonicalize_name(line.partition("==")[0]) for line in _constraints()}

    assert sorted(_needed() - pins) == []


def test_a_pin_is_a_name_and_a_version() -> None:
    assert [line for line in _constraints() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def _constraints() -> list[str]:
    return (REPOSITORY / "constraints.txt").read_text().splitlines()


def _needed() -> set[str]:
    """Names of all packages that the project and its extras depend on here, directly or not."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting = [Requirement(text) for text in [*project["dependencies"], *extras["dev"], *extras["devstack"]]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == canonicalize_name(project["name"]):
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            candidates = map(Requirement, requires(name) or [])
            waiting += [c for c in candidates if not c.marker or c.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}
