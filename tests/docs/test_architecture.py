"""docs/architecture.md has the map of the code as it is."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MAX_MODULES = 16


def section(title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/architecture.md has no section '{title}'"
    return found[1]


def first_cells(title: str) -> str:
    return "\n".join(re.findall(r"^\| (.*?) \|", section(title), re.MULTILINE))


def modules_of(folder: Path) -> set[str]:
    return {
        path.stem
        for path in folder.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("__")
    }


def test_the_map_has_every_part_of_the_product_and_no_other() -> None:
    mapped = set(re.findall(r"`(.+?)`", first_cells("The map")))
    parts = {f"app/{name}" for name in modules_of(ROOT / "app")} | {
        "workers",
        "migrations",
        "devstack",
        "bench",
        "ops",
        "tests",
    }

    assert {place.removesuffix("/").removesuffix(".py") for place in mapped} == parts, (
        "Add the line to the map of docs/architecture.md, or remove it."
    )
    assert {place for place in mapped if not (ROOT / place).exists()} == set()


def test_the_map_names_every_module_of_the_cascade() -> None:
    [line] = re.findall(r"^\| `app/cleanup/` \|.*$", section("The map"), re.MULTILINE)

    assert modules_of(ROOT / "app" / "cleanup") <= {name.strip("/") for name in re.findall(r"`(.+?)`", line)}


def test_the_layers_are_those_that_the_imports_are_held_to() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [one["layers"] for one in contracts if one["type"] == "layers"]
    drawn = re.findall(r"```\n(.*?)```", section("Layers"), re.DOTALL)[0].splitlines()

    assert [set(re.findall(r"[\w.]+", layer)) for layer in layers] == [
        set(re.findall(r"workers|app\.\w+", line)) for line in drawn
    ], "docs/architecture.md draws other layers than pyproject.toml has."


def test_what_is_planned_is_not_there_yet() -> None:
    planned = set(re.findall(r"`(app/\w+/?(?:\w+\.py)?)`", section("Where new things go")))
    there = {path for path in planned if (ROOT / path).exists()}

    assert there <= {"app/cleanup/", "app/cleanup/lease.py", "app/api/", "app/cli/"}, (
        "Move the line to the map of docs/architecture.md."
    )


def test_no_folder_is_too_wide_to_be_read_at_a_glance() -> None:
    folders = {
        path.parent for package in ("app", "workers") for path in (ROOT / package).rglob("__init__.py")
    }
    counts = {folder: len([*folder.glob("[!_]*.py")]) for folder in folders}
    wide = {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MAX_MODULES}

    assert wide == {}, "Split the folder by idea; docs/architecture.md says where new things go."
