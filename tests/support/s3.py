"""An S3 server in its own process, and the content of its bucket."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import fsspec
import httpx
from botocore.config import Config

from devstack.processes import HOST, Command, free_port, kill_group
from tests.support.deadlines import DEADLINE_S

BUCKET = "blobs"

# Each session of botocore searches and reads the descriptions of AWS anew, a third of a second long; hundreds of tests
# open one.
botocore.session.create_loader = cache(botocore.session.create_loader)


@dataclass(frozen=True)
class S3Server:
    """The address of the server, and a client other than the product's."""

    endpoint: str

    @cached_property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def keys(self, prefix: str = "") -> list[str]:
        """Everything that takes up space below `prefix`: objects, old versions, and unfinished uploads."""
        client, found = self.client, []
        for page in client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=prefix):
            found += [each["Key"] for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
        return found + [key for key in self.uploads() if key.startswith(prefix)]

    def uploads(self) -> list[str]:
        """The keys of multipart uploads that are neither complete nor aborted."""
        answer = self.client.list_multipart_uploads(Bucket=BUCKET)
        return [each["Key"] for each in answer.get("Uploads", [])]


def environment(endpoint: str) -> dict[str, str]:
    """The environment variables that give a process of the product the endpoint and credentials of S3."""
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def serving_s3(directory: Path) -> Iterator[S3Server]:
    """A server with one empty bucket; nothing of it outlives the block."""
    port = free_port()
    server = S3Server(f"http://{HOST}:{port}")
    command = Command(
        (sys.executable, Path(__file__).with_name("s3_server.py"), HOST, str(port)), env=_clean()
    )
    with (directory / "s3.log").open("wb") as log:
        process = command.spawn(log)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not _answers(server.endpoint):
            assert process.poll() is None, (directory / "s3.log").read_text()
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.05)
        server.client.create_bucket(Bucket=BUCKET)
        yield server
    finally:
        kill_group(process)


@contextmanager
def s3fs_uses(endpoint: str, *, has_credentials: bool = True) -> Iterator[None]:
    """Configure s3fs in this process for the block, as its environment variables would."""
    before = fsspec.config.conf.get("s3", {})
    # Certificates of authorities, of no use over plain HTTP, would be read anew for each store.
    fsspec.config.conf["s3"] = {"endpoint_url": endpoint, "client_kwargs": {"verify": False}}
    if has_credentials:
        fsspec.config.conf["s3"] |= {"key": "key", "secret": "secret"}
    try:
        yield
    finally:
        fsspec.config.conf["s3"] = before


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def _answers(endpoint: str) -> bool:
    try:
        return httpx.get(endpoint, timeout=2).is_success
    except httpx.TransportError:
        return False
