"""The deletion log on its media."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from app.deletion_log import DeletionLog, FinishedDeletion
from tests.support.stores import STORES, keeping


@pytest.fixture(params=STORES)
def log(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DeletionLog]:
    with keeping(request.param, tmp_path) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        yield DeletionLog.open(place.url)


def finished(number: int, *, month: int) -> FinishedDeletion:
    at = datetime(2026, month, 1, tzinfo=UTC)
    return FinishedDeletion(UUID(int=number), UUID(int=1000 + number), at, at)


def ids(*numbers: int) -> list[tuple[UUID, UUID]]:
    return [(UUID(int=1000 + number), UUID(int=number)) for number in numbers]


def test_it_is_read_month_by_month(log: DeletionLog) -> None:
    assert log.is_empty()
    assert list(log.read()) == []

    for one in (finished(3, month=10), finished(1, month=9), finished(2, month=9), finished(2, month=9)):
        log.append(one)

    assert not log.is_empty()
    assert list(log.read()) == ids(1, 2, 3)


def test_a_backup_from_the_first_hours_of_a_month_needs_the_month_before_too(log: DeletionLog) -> None:
    for month in (7, 8, 9):
        log.append(finished(month, month=month))

    assert list(log.read(datetime(2026, 9, 1, 5))) == ids(8, 9)  # noqa: DTZ001 -- as typed, in UTC
    assert list(log.read(datetime(2026, 9, 3))) == ids(9)  # noqa: DTZ001


def test_files_of_others_are_no_records(log: DeletionLog) -> None:
    log.append(finished(1, month=9))
    for key in ("2026-09/README", "2026-09/a.b.json", "notes/1.2.3"):
        staged = log._tree.stage(key, within="")
        staged.finish()
        staged.publish()

    assert list(log.read()) == ids(1)
