import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devstack.stacks import PROCFILE, make_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with tiny programs instead of the product's."""
    return make_checkout(tmp_path / "checkout", PROCFILE)


@pytest.fixture(autouse=True)
def _databases_are_deleted(tmp_path: Path) -> Iterator[None]:
    """For root PostgreSQL keeps its data outside `tmp_path`, where the links lead to."""
    yield
    for link in tmp_path.rglob("cluster"):
        if link.is_symlink():
            shutil.rmtree(link.readlink().parent, ignore_errors=True)
