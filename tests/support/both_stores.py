"""Every test of a module against a store on a disk and against a bucket: `from … import s3, settings`."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from app.config import Settings
from tests.support.s3 import BUCKET, S3Server, s3fs_uses, serving_s3

__all__ = ["s3", "settings"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("s3")) as server, s3fs_uses(server.endpoint):
        yield server


@pytest.fixture(params=["disk", "bucket"])
def settings(request: pytest.FixtureRequest, settings: Settings, s3: S3Server) -> Settings:
    if request.param == "disk":
        return settings
    return settings.model_copy(update={"storage_url": f"s3://{BUCKET}/{uuid4()}"})
