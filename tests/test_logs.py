"""What stands in logs and in the output of commands, when users have chosen the words."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy.orm import Session

from app.cli import main
from app.config import Settings
from app.context import Context
from app.logs import configure_logs, get_logger
from app.terminal import printable

ATTACK = "a\x1b]0;title\x07b\x9b2Jc\r\u202ed"
SHOWN = r"a\x1b]0;title\x07b\x9b2Jc\r\u202ed"


@pytest.fixture
def log_format(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    configure_logs(Settings())


@pytest.mark.parametrize("log_format", ["console", "json"], indirect=True)
def test_control_characters_reach_no_terminal_and_json_is_exact(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings(log_format=log_format))
    log = get_logger("tests.logs")

    log.warning("file.refused", path=ATTACK)
    log.warning("file.failed", exc_info=ValueError(ATTACK))

    written = capsys.readouterr().err
    if log_format == "json":
        assert json.loads(written.splitlines()[0])["path"] == ATTACK
    else:
        assert written.count(SHOWN.replace("\\", "\\\\")) + written.count(SHOWN) >= 2
    assert [sign for sign in written if printable(sign) != sign] == []


def test_tabs_and_line_ends_stay() -> None:
    assert printable("a\tb\nc ä €") == "a\tb\nc ä €"


def test_what_a_command_prints_is_no_command_to_the_terminal(context: Context, session: Session) -> None:
    printed = CliRunner().invoke(main, ["runtime", "purge", "--direct", ATTACK], obj=context)

    assert printed.exit_code == 4
    assert SHOWN in printed.output
    assert [sign for sign in printed.output if printable(sign) != sign] == []
