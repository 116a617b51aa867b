"""What is printed is for people or for programs, and never a command to a terminal."""

import json

import pytest
import yaml

from app.cli.client.output import fields, show_list, show_one

ITEM = {
    "name": "a\x1b[31m\nb\u202e",
    "counts": {"jobs": 1, "filesets": 2},
    "none": None,
    "empty": {},
    "yes": True,
    "zero": 0,
    "names": ["x", "y"],
}
COLUMNS = fields(*ITEM)


def test_a_table_is_aligned_and_each_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_list("table", [ITEM, {**ITEM, "name": "longer than the other one"}], COLUMNS, name="name")

    title, first, second = capsys.readouterr().out.splitlines()
    assert title.split() == ["NAME", "COUNTS", "NONE", "EMPTY", "YES", "ZERO", "NAMES"]
    assert first.startswith("a\\x1b[31m b\\u202e")
    assert first.endswith("jobs 1, filesets 2  -     -      yes  0     x, y")
    assert second.endswith("jobs 1, filesets 2  -     -      yes  0     x, y")
    assert second.index("jobs") == title.index("COUNTS")


def test_one_thing_is_a_line_for_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    show_one("table", {"last_seen_at": None, "n": 7}, fields("last_seen_at", "n"), name="n")

    assert capsys.readouterr().out == "last seen at  -\nn             7\n"


def test_each_entry_of_a_list_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show_one("table", {"n": 7, "why": ["a\nb", "c"], "none": []}, fields("n", "why", "none"), name="n")

    assert capsys.readouterr().out == "n     7\nwhy   a b\n      c\nnone  -\n"


@pytest.mark.parametrize(("format_", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_get_it_exactly_in_printable_signs(
    capsys: pytest.CaptureFixture[str], format_: str, parse: object
) -> None:
    show_list(format_, [ITEM], COLUMNS, name="name")

    printed = capsys.readouterr().out
    assert callable(parse)
    assert parse(printed) == [ITEM]
    assert printed.replace("\n", "").isprintable()
    assert printed.isascii()


def test_names_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    show_list("name", [ITEM, {**ITEM, "name": "b"}], COLUMNS, name="name")

    assert capsys.readouterr().out.splitlines() == ["a\\x1b[31m b\\u202e", "b"]


def test_nothing_is_a_title_or_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    for format_ in ("table", "json", "yaml", "name"):
        show_list(format_, [], fields("name"), name="name")

    assert capsys.readouterr().out == "NAME\n[]\n[]\n"
