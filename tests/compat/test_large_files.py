"""Files that are larger than any memory should be asked for, and uploads that stand still, for either store."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from app.storage.marker import KEY
from tests.compat.nemo import HERE, Nemo
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Flat, Tell, Within, peak_mib
from tests.support.stack import Stack
from tests.support.stores import STORES, Store, keeping

pytestmark = pytest.mark.long

MEGABYTES = {"file": 256, "s3": 128}
"""Several times what a server may grow by. The stand-in for S3 reads the whole file for each range."""
WARM_MEGABYTES = 32  # A few parts and pieces: what these take, the server has taken before it is measured.
ALLOWED_GROWTH_MIB = 32
IDLE_S = 15


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with keeping(request.param, tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("large"),
        parts=["web"],
        environment=store.environment,
        storage_url=store.url,
        upload_idle_seconds=IDLE_S,
    ) as stack:
        yield stack


def server_peak_mib(stack: Stack) -> float:
    """The most memory that a process of the server ever had."""
    [web] = stack.running("web")
    return peak_mib(process.pid for process in psutil.Process(web.process.pid).children(recursive=True))


def test_a_large_file_passes_through_a_server_whose_memory_stays_flat(
    stack: Stack, store: Store, nemo: Nemo, workspace: str, flat: Flat, tell: Tell
) -> None:
    script = HERE / "scripts" / "large.py"
    warm = nemo.run(script, stack.api_url, workspace, str(WARM_MEGABYTES))
    assert warm.returncode == 0, warm.stdout + warm.stderr
    scheme = store.url.partition(":")[0]
    megabytes = MEGABYTES[scheme]
    before, started = server_peak_mib(stack), time.monotonic()

    done = nemo.run(script, stack.api_url, workspace, str(megabytes))

    assert done.returncode == 0, done.stdout + done.stderr + stack.tails()
    what = f"{megabytes} MiB twice up and twice down by SDK, fsspec and form, {scheme}"
    flat(what, before, server_peak_mib(stack), ALLOWED_GROWTH_MIB)
    tell(f"{time.monotonic() - started:7.2f} s  {what} ({', '.join(done.stdout.splitlines())})")
    fileset = f"/apis/files/v2/workspaces/{workspace}/filesets/corpus"
    assert stack.client.delete(fileset).is_success  # nobody needs so much afterwards


# The CLI takes its time for each of them, and to a bucket they are but small files.
@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_two_hundred_files_travel_both_ways_by_the_cli(nemo: Nemo, workspace: str, tmp_path: Path) -> None:
    within = ("--workspace", workspace)
    files = {f"{number % 7}/{number}.bin": number.to_bytes(2, "big") * number for number in range(200)}
    for name, content in files.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(content)

    for command in (
        ("filesets", "create", "many"),
        ("upload", f"{tmp_path / 'source'}/", "many"),
        ("download", "many", "-o", f"{tmp_path / 'target'}/"),
    ):
        done = nemo.cli("files", *command, *within)
        assert done.returncode == 0, done.stdout + done.stderr

    target = tmp_path / "target"
    assert {
        str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()
    } == files


@pytest.mark.parametrize("announced", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_stands_still_is_refused_and_leaves_nothing(
    stack: Stack, store: Store, workspace: str, announced: str, within: Within
) -> None:
    filesets = f"/apis/files/v2/workspaces/{workspace}/filesets"
    assert stack.client.post(filesets, json={"name": "data"}).is_success
    before = store.paths()
    server = urlsplit(stack.api_url)
    head = f"PUT {filesets}/data/-/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: x/x\r\n{announced}\r\n\r\n"
    with socket.create_connection((server.hostname, server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(head.encode() + b"4\r\nhalf\r\n")
        started = time.monotonic()
        answer = b""
        while chunk := connection.recv(65536):  # until the server hangs up
            answer += chunk

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The upload stalled for 15 s" in answer
    took_s = time.monotonic() - started
    within(f"an upload that stands still, {announced}: refused", took_s, 3 * IDLE_S)
    assert took_s > IDLE_S - 0.5
    assert stack.client.get(f"{filesets}/data/files").json()["data"] == []
    # The server may have taken the store meanwhile, and so have given it a marker.
    made = [path for path in store.paths() if path not in before and not path.endswith(KEY)]
    assert [path for path in made if not Path(path).is_dir()] == []
