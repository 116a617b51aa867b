"""No word that the glossary has retired is used in any file of the project."""

import io
import re
import subprocess
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from tests.support import glossary

ROOT = Path(__file__).parents[2]
PRODUCT = ("app/", "workers/", "devstack/")

EXEMPT = {
    "docs/glossary.md": "it lists them",
    "tests/docs/test_retired_words.py": "it shows that they are found",
    "migrations/versions/": "a migration names columns as they were before it",
    "tests/devstack/compose-spec.json": "it is published by others",
}
"""Files, or folders of files, in which they may stand, each with the reason."""

OTHER_SENSE = {
    ("home", "devstack/"): "the directory of an embedded server",
    ("draft", "devstack/"): "a data directory that is being prepared",
    ("draft", "tests/devstack/"): "the same, or a draft of JSON schema",
    ("stray", "tests/filters/"): "a made-up field of made-up rows",
}
"""Words that may be used in some files in another sense."""

ORDINARY = (
    "the audit log",  # which keeps the name
    "Draft202012",  # of JSON schema
    "unheard-of",
)
"""Phrases with one of the words in them that are none of the product's."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_of(text: str) -> Iterator[tuple[int, str]]:
    """The words of a text with their lines; names are taken apart at `_`, `-` and capital letters."""
    for phrase in ORDINARY:
        # Also where it is broken over two lines, of a comment too.
        pattern = r"[\s#]+".join(map(re.escape, phrase.split()))
        text = re.sub(pattern, lambda match: "\n" * match[0].count("\n"), text, flags=re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), start=1):
        for word in WORD.findall(line):
            yield number, word.lower()


def names_of(source: str) -> Iterator[tuple[int, str]]:
    """The names that Python source defines or uses, with their lines; also those in backquotes of its texts."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string
        elif token.type in {tokenize.STRING, tokenize.COMMENT}:
            for match in re.finditer(r"`(\w+)[`(.]", token.string):
                yield token.start[0] + token.string[: match.start()].count("\n"), match[1]


@cache
def phrases() -> dict[str, list[tuple[list[str], str]]]:
    """What is retired everywhere, word by word, and its successor, by the first word."""
    found = defaultdict(list)
    for words, how, new in glossary.retired():
        for word in words if how == glossary.EVERYWHERE else ():
            found[word.split()[0]].append((word.split(), new))
    return found


@cache
def names() -> dict[str, str]:
    """The patterns of what is retired as a name, and its successor."""
    return {
        word: new for words, how, new in glossary.retired() if how == glossary.AS_A_NAME for word in words
    }


def uses(path: str, text: str) -> list[str]:
    """Each use of a retired word, with its place and its successor."""
    # The path is line 0: modules have names, too.
    words = [*((0, word) for _, word in words_of(path)), *words_of(text)]
    found = [
        f"{path}:{number}: '{' '.join(phrase)}' is retired: {new}"
        for at, (number, first) in enumerate(words)
        for phrase, new in phrases().get(first, ())
        if [word for _, word in words[at : at + len(phrase)]] == phrase
        and not is_excused(" ".join(phrase), path)
    ]
    if path.startswith(PRODUCT) and path.endswith(".py"):
        found += [
            f"{path}:{number}: the name '{name}' is retired: {new}"
            for number, name in names_of(text)
            for old, new in names().items()
            if fnmatchcase(name, old) and not is_excused(old, path)
        ]
    return found


def is_excused(word: str, path: str) -> bool:
    return any(word == other and path.startswith(place) for other, place in OTHER_SENSE)


def files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [
        str(path.relative_to(ROOT)) for path in paths if path.is_file() and b"\0" not in path.read_bytes()
    ]


def test_no_retired_word_is_used() -> None:
    found = [
        use
        for name in files()
        if not name.startswith(tuple(EXEMPT))
        for use in uses(name, (ROOT / name).read_text(errors="replace"))
    ]

    assert not found, "Use the words of docs/glossary.md:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ring_again = 1", "ring"),
        ("class DoorBell: ...", "bell"),
        ("# It has to give\n# way to others.", "give way"),
        ('log.info("run.stray_removed")', "stray"),
        ("def forget_host(): ...", "forget host"),
        ("visits = 1", "visits"),
        ("class ShownFile: ...", "ShownFile"),
        ('"""As `go_on` says."""', "go_on"),
        ("'the audit' # of bytes", "the audit"),
    ],
)
def test_a_retired_word_is_found_wherever_it_stands(text: str, word: str) -> None:
    assert any(f"'{word}'" in use for use in uses("app/example.py", text))


@pytest.mark.parametrize(
    "text",
    [
        "nothing = string.ringed",
        "# The audit\n# log",
        "# They go on; nobody said so.",
        "Draft202012Validator",
        "gateway = 1",
    ],
)
def test_other_words_are_left_alone(text: str) -> None:
    assert uses("app/example.py", text) == []


def test_every_exemption_is_for_something_that_is_there() -> None:
    places = [*EXEMPT, *(place for _, place in OTHER_SENSE)]
    needless = [place for place in places if not any(name.startswith(place) for name in files())]

    assert needless == [], "Remove what exempts nothing."
