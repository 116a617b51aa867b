"""The blob store in a bucket: versions, uploads in parts, and errors of S3."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from uuid import UUID, uuid4

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from app import clock
from app.cleanup.kinds.base import classify
from app.lifecycle import FailureClass
from app.logs import explain
from app.storage import bucket
from app.storage.blob_store import BlobStore
from app.storage.purge import BytesRemain
from app.storage.tree import StoreMisconfigured
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Flat
from tests.support.s3 import BUCKET, S3Server, environment, s3fs_uses, serving_s3
from tests.support.s3_proxy import FORBIDDEN, SLOW_DOWN, TRUNCATED, Fault, Proxy, proxying
from tests.support.serving import serving

FILESET = uuid4()
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("s3")) as server, s3fs_uses(server.endpoint):
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    with proxying(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def workspace() -> UUID:
    return uuid4()


@pytest.fixture
def store(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    """With time for a server on a machine that does much else."""
    monkeypatch.setattr(bucket, "_REQUEST_S", DEADLINE_S)
    store = BlobStore.open(f"s3://{BUCKET}/blobs")
    store._tree._fs.config_kwargs["read_timeout"] = DEADLINE_S
    return store


@pytest.fixture
def shaky(proxy: Proxy) -> BlobStore:
    """The same store by way of the proxy."""
    with s3fs_uses(proxy.endpoint):
        return BlobStore.open(f"s3://{BUCKET}/blobs")


def put(store: BlobStore, workspace: UUID, path: str, content: bytes = b"x") -> None:
    store.publish(store.stage(workspace, FILESET, path, [content]))


def key(workspace: UUID, path: str = "") -> str:
    return f"blobs/files/{workspace}/{FILESET}/{path}"


# --- Objects and uploads


def test_the_bytes_of_every_version_are_deleted(s3: S3Server, workspace: UUID) -> None:
    s3.client.create_bucket(Bucket="versioned")
    s3.client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    store = BlobStore.open("s3://versioned")
    for path, content in (("a", b"1"), ("a", b"2"), ("b", b"3")):
        put(store, workspace, path, content)
    store.remove(workspace, FILESET, "b")

    store.purge_fileset(workspace, FILESET)

    left = s3.client.list_object_versions(Bucket="versioned")
    assert (left.get("Versions", []), left.get("DeleteMarkers", [])) == ([], [])


@pytest.mark.parametrize("is_versioned", [False, True], ids=["plain", "versioned"])
@pytest.mark.parametrize("sign", ["\ufffe", "\uffff", "\x01"], ids=ascii)
def test_a_name_that_xml_cannot_carry_stops_neither_purge_nor_scan(
    s3: S3Server, workspace: UUID, sign: str, is_versioned: bool
) -> None:
    """A release before this one took such names, and then neither could read what the bucket answered."""
    bucket = f"unfit-{uuid4()}"
    s3.client.create_bucket(Bucket=bucket)
    if is_versioned:
        s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store = BlobStore.open(f"s3://{bucket}")
    put(store, workspace, "fit")
    name = f"files/{workspace}/{FILESET}/a{sign}b +%41"
    s3.client.put_object(Bucket=bucket, Key=name, Body=b"x")
    with pytest.raises((ResponseParserError, ClientError)):
        s3.client.create_multipart_upload(Bucket=bucket, Key=name)

    assert store.workspace_ids() == {workspace}
    assert store.collect_staged_uploads(datetime(2000, 1, 1, tzinfo=UTC)) == (0, True)
    store.purge_fileset(workspace, FILESET)
    store.purge_workspace(workspace)

    assert store.workspace_ids() == set()
    assert s3.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert not s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("name", ["dir/", "a//b", "./c", "../d", "a", "a/b/", "e /\u00fc+%41?&#", "/"])
def test_keys_that_no_route_accepts_are_deleted_all_the_same(
    s3: S3Server, store: BlobStore, workspace: UUID, name: str
) -> None:
    put(store, workspace, "a/b")
    s3.client.put_object(Bucket=BUCKET, Key=key(workspace, name), Body=b"foreign")
    neighbour = f"blobs/files/{workspace}/{FILESET}-other"
    s3.client.put_object(Bucket=BUCKET, Key=neighbour, Body=b"starts with the same letters")

    assert "a/b" in [file.path for file in store.files(workspace, FILESET)]
    store.purge_fileset(workspace, FILESET)

    assert s3.keys(f"blobs/files/{workspace}") == [neighbour]


def test_more_than_a_page_of_files_is_listed_and_deleted(
    s3: S3Server, store: BlobStore, workspace: UUID
) -> None:
    client = s3.client
    with ThreadPoolExecutor(8) as pool:
        names = [key(workspace, f"{number:04}") for number in range(1005)]
        list(pool.map(lambda name: client.put_object(Bucket=BUCKET, Key=name, Body=b"x"), names))

    assert len(store.files(workspace, FILESET)) == store.size(workspace) == 1005
    store.purge_fileset(workspace, FILESET)

    assert s3.keys(key(workspace)) == []


def test_a_purge_ends_an_upload_of_which_nothing_has_been_stored_yet(
    s3: S3Server, store: BlobStore, workspace: UUID
) -> None:
    """Otherwise it would begin in a deleted fileset, where only the orphan scan finds it."""

    def overtaken() -> Iterator[bytes]:
        yield b"x"
        store.purge_fileset(workspace, FILESET)
        yield b"x" * 9_000_000

    with pytest.raises(FileNotFoundError):
        store.stage(workspace, FILESET, "a", overtaken())

    assert s3.keys(key(workspace)) == []


def test_a_file_takes_three_requests_that_write_however_small_it_is(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    staged = shaky.stage(workspace, FILESET, "a", [b"x"])
    shaky.publish(staged)
    shaky.discard(staged)

    writing = [request for request in proxy.requests if not request.startswith(("GET", "HEAD"))]
    assert [request.split()[0] for request in writing] == ["POST", "PUT", "POST"]


def test_parts_have_one_size_and_are_large_enough_for_what_was_announced(
    s3: S3Server, store: BlobStore, workspace: UUID, monkeypatch: Any
) -> None:
    monkeypatch.setattr("app.storage.staged_object._MAX_PARTS", 3)
    content = os.urandom(32_000_000)

    store.publish(store.stage(workspace, FILESET, "a", [content], at_most=len(content)))

    assert b"".join(store.read(workspace, FILESET, "a")) == content
    assert s3.client.head_object(Bucket=BUCKET, Key=key(workspace, "a"))["ETag"].endswith('-3"')


def test_a_file_that_did_not_say_that_it_is_very_large_is_refused(
    s3: S3Server, store: BlobStore, workspace: UUID, monkeypatch: Any
) -> None:
    monkeypatch.setattr("app.storage.staged_object._MAX_PARTS", 1)

    with pytest.raises(OSError, match="announced") as raised:
        store.stage(workspace, FILESET, "a", [b"x" * 9_000_000])

    assert raised.value.errno == errno.EFBIG
    assert s3.keys(key(workspace)) == []


def test_a_file_that_is_said_to_be_too_large_for_any_upload_takes_no_memory(
    s3: S3Server, store: BlobStore, workspace: UUID
) -> None:
    def chunks() -> Iterator[bytes]:
        pytest.fail("no byte of it may be requested")
        yield b""

    with pytest.raises(OSError, match="618 GiB") as raised:
        store.stage(workspace, FILESET, "a", chunks(), at_most=10**14)

    assert raised.value.errno == errno.EFBIG
    assert s3.keys(key(workspace)) == []


def test_an_upload_that_cannot_be_collected_keeps_no_other_from_it(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    for path in ("a", "locked", "z"):
        shaky.stage(workspace, FILESET, path, [b"x" * 9_000_000])
    proxy.choose = lambda method, target: FORBIDDEN if method == "DELETE" and "locked" in target else None

    with pytest.raises(PermissionError):
        shaky.collect_staged_uploads(clock.now() + timedelta(hours=1))

    proxy.fail(None)
    assert shaky.collect_staged_uploads(clock.now() + timedelta(hours=1)) == (1, True)


def test_an_upload_whose_process_was_killed_is_deleted_with_its_fileset(
    s3: S3Server, store: BlobStore, workspace: UUID
) -> None:
    store.stage(workspace, FILESET, "killed", [b"x" * 9_000_000])
    assert s3.keys(key(workspace)) == [key(workspace, "killed")]

    store.purge_fileset(workspace, FILESET)

    assert s3.keys(key(workspace)) == []


def test_a_download_is_never_a_mix_of_two_versions(store: BlobStore, workspace: UUID) -> None:
    put(store, workspace, "a", b"1" * 6_000_000)
    reading = store.read(workspace, FILESET, "a")
    reading.begin()
    put(store, workspace, "a", b"2" * 6_000_000)

    with pytest.raises(OSError, match="replaced while it was read"):
        list(reading)


def test_only_the_range_is_fetched(proxy: Proxy, shaky: BlobStore, workspace: UUID) -> None:
    put(shaky, workspace, "a", b"0123456789" * 1_000_000)
    reading = shaky.read(workspace, FILESET, "a")
    sizes: list[int] = []
    proxy.choose = lambda method, target: Fault(rewrite=lambda body: sizes.append(len(body)) or body)
    reading.limit(5_000_000, 5_000_007)

    assert b"".join(reading) == b"0123456"
    assert sizes == [7]


# --- Failures


def act(store: BlobStore, workspace: UUID, name: str) -> Any:
    match name:
        case "upload":
            return put(store, workspace, "new")
        case "download":
            return b"".join(store.read(workspace, FILESET, "a"))
        case "list":
            return store.files(workspace, FILESET)
        case "remove":
            return store.remove(workspace, FILESET, "a")
        case "purge":
            return store.purge_fileset(workspace, FILESET)
        case "scan":
            return store.workspace_ids()


ACTS = ["upload", "download", "list", "remove", "purge", "scan"]
FAULTS = {
    "revoked": (FORBIDDEN, FailureClass.PERMANENT),
    "denied": (Fault(403, "AccessDenied", "Access Denied"), FailureClass.PERMANENT),
    "signature": (Fault(403, "SignatureDoesNotMatch"), FailureClass.PERMANENT),
    "session over": (Fault(400, "InvalidToken"), FailureClass.PERMANENT),
    "unknown": (Fault(401, "Unauthorized"), FailureClass.PERMANENT),
    "no bucket": (Fault(404, "NoSuchBucket", "The specified bucket does not exist"), FailureClass.PERMANENT),
    "slow down": (SLOW_DOWN, FailureClass.TRANSIENT),
    "internal": (Fault(500, "InternalError"), FailureClass.TRANSIENT),
    "not S3": (Fault(502, "nonsense", "<html>"), FailureClass.TRANSIENT),
    "truncated": (TRUNCATED, FailureClass.TRANSIENT),
}


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_tells_whether_it_may_go_away_and_names_no_secret(
    proxy: Proxy, shaky: BlobStore, workspace: UUID, fault: str, name: str
) -> None:
    put(shaky, workspace, "a")
    failure, expected = FAULTS[fault]
    if (fault, name) == ("truncated", "remove"):
        return  # its answer has no body
    if fault == "session over" and name in ("download", "remove"):
        return  # they begin with a HEAD, whose answers carry no code
    proxy.fail(failure)

    with pytest.raises(OSError) as raised:  # noqa: PT011 -- the class is the subject
        act(shaky, workspace, name)

    assert classify(raised.value) is expected
    message = explain(raised.value)
    assert not any(secret in message for secret in ("secret", proxy.endpoint, BUCKET + "/"))
    if failure.code and failure.status < 500 and name in ("purge", "scan"):  # a HEAD has no body to say why
        assert failure.code in message


def test_a_store_that_cannot_be_reached_is_a_transient_failure(workspace: UUID) -> None:
    with s3fs_uses("http://127.0.0.1:9"):
        store = BlobStore.open(f"s3://{BUCKET}")

    for name in ACTS:
        with pytest.raises(ConnectionError) as raised:
            act(store, workspace, name)
        assert classify(raised.value) is FailureClass.TRANSIENT
        assert "127.0.0.1" not in str(raised.value)


def test_a_store_that_does_not_answer_is_a_transient_failure(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    shaky._tree._fs.config_kwargs["read_timeout"] = 0.3
    proxy.fail(Fault(delay_s=30))

    with pytest.raises(TimeoutError) as raised:
        shaky.purge_fileset(workspace, FILESET)

    assert classify(raised.value) is FailureClass.TRANSIENT
    proxy.released.set()


def test_a_store_that_did_not_answer_is_not_waited_for_once_more(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    staged = shaky.stage(workspace, FILESET, "a", [b"x"])
    shaky._tree._fs.config_kwargs["read_timeout"] = 0.3
    shaky._tree._fs.connect(refresh=True)
    proxy.fail(Fault(delay_s=30))

    with pytest.raises(TimeoutError):
        shaky.publish(staged)
    asked = len(proxy.requests)
    shaky.discard(staged)

    assert len(proxy.requests) == asked
    proxy.released.set()


class Trickle(BaseRequestHandler):
    """Answers byte by byte: never silent for long, and not done before the tests give up."""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n<")
        deadline = time.monotonic() + DEADLINE_S
        with suppress(OSError):
            while time.monotonic() < deadline:
                self.request.sendall(b" ")
                threading.Event().wait(0.05)


@pytest.fixture
def trickling(s3: S3Server) -> Iterator[BlobStore]:
    server = ThreadingTCPServer(("127.0.0.1", 0), Trickle)
    server.daemon_threads, server.block_on_close = True, False
    with serving(server), s3fs_uses(f"http://127.0.0.1:{server.server_address[1]}"):
        yield BlobStore.open(f"s3://{BUCKET}")


def test_an_answer_that_never_ends_is_given_up(
    trickling: BlobStore, workspace: UUID, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bucket, "_REQUEST_S", 1.0)

    with pytest.raises(TimeoutError, match="the object store does not answer") as raised:
        trickling.purge_fileset(workspace, FILESET)

    assert classify(raised.value) is FailureClass.TRANSIENT


def test_without_credentials_the_reason_is_readable(s3: S3Server, workspace: UUID, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3fs_uses(s3.endpoint, has_credentials=False):
        store = BlobStore.open(f"s3://{BUCKET}")

    with pytest.raises(StoreMisconfigured, match="credentials") as raised:
        store.purge_fileset(workspace, FILESET)
    assert classify(raised.value) is FailureClass.PERMANENT


def test_a_key_that_refuses_within_a_batch_is_no_success_and_protects_no_other(
    s3: S3Server, proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    for path in ("a", "locked", "z"):
        put(shaky, workspace, path)
    answer = (
        f"<DeleteResult><Error><Key>{key(workspace, 'locked')}</Key><Code>AccessDenied</Code>"
        "<Message>Object is locked</Message></Error></DeleteResult>"
    )

    def refuse(body: bytes) -> bytes:
        s3.client.put_object(Bucket=BUCKET, Key=key(workspace, "locked"), Body=b"x")
        return answer.encode()

    proxy.fail(Fault(rewrite=refuse), only="?delete")
    with pytest.raises(PermissionError, match=rf"AccessDenied: Object is locked \({FILESET}/locked\)"):
        shaky.purge_fileset(workspace, FILESET)

    assert s3.keys(key(workspace)) == [key(workspace, "locked")]


def test_what_a_bucket_only_says_that_it_deleted_is_no_progress(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    put(shaky, workspace, "a")
    put(shaky, workspace, "b")
    proxy.choose = lambda method, target: (
        Fault(200, answer="<DeleteResult/>") if "?delete" in target else None
    )

    with pytest.raises(BytesRemain):
        shaky.purge_fileset(workspace, FILESET, within_s=0)


def test_an_upload_that_is_only_said_to_be_aborted_is_no_progress(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    for path in ("a", "b"):
        shaky.stage(workspace, FILESET, path, [b"x" * 9_000_000])
    proxy.choose = lambda method, target: Fault(204, answer="") if method == "DELETE" else None

    with pytest.raises(BytesRemain):
        shaky.purge_fileset(workspace, FILESET, within_s=0)


def test_a_bucket_that_only_says_that_it_deleted_is_found_out(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    put(shaky, workspace, "a")
    proxy.choose = lambda method, target: (
        Fault(200, answer="<DeleteResult/>") if "?delete" in target else None
    )

    with pytest.raises(BytesRemain, match=rf"{FILESET}/a is still there"):
        shaky.purge_fileset(workspace, FILESET)


def test_an_upload_that_the_store_refuses_in_the_middle_leaves_nothing(
    s3: S3Server, proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    put(shaky, workspace, "a", b"old")
    proxy.fail(SLOW_DOWN, only="partNumber=2")

    with pytest.raises(OSError, match="SlowDown"):
        shaky.stage(workspace, FILESET, "a", (b"x" * 1_000_000 for _ in range(20)))

    assert s3.keys(key(workspace)) == [key(workspace, "a")]
    assert b"".join(shaky.read(workspace, FILESET, "a")) == b"old"


def test_one_answer_that_breaks_off_is_asked_for_again(
    proxy: Proxy, shaky: BlobStore, workspace: UUID
) -> None:
    put(shaky, workspace, "a", b"0123456789" * 600_000)
    once = iter([TRUNCATED])
    proxy.choose = lambda method, target: (
        next(once, None) if method == "GET" and "list" not in target else None
    )

    assert b"".join(shaky.read(workspace, FILESET, "a")) == b"0123456789" * 600_000


def test_credentials_in_the_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as raised:
        BlobStore.open("s3://key:hunter2@bucket")

    assert "hunter2" not in str(raised.value)


# --- Threads and processes


def test_threads_share_a_store(store: BlobStore, workspace: UUID) -> None:
    def travel(number: int) -> bool:
        content = bytes([number]) * 100_000
        put(store, workspace, f"d/{number}", content)
        return b"".join(store.read(workspace, FILESET, f"d/{number}")) == content

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(travel, range(64)))
    assert len(store.files(workspace, FILESET)) == 64


def test_a_process_that_was_forked_opens_its_own(s3: S3Server, workspace: UUID) -> None:
    """As the workers of Celery do after their parent has used a store."""
    program = f"""
import os, sys
from uuid import UUID
from app.storage.blob_store import BlobStore
workspace, fileset = UUID("{workspace}"), UUID("{FILESET}")
def put(path):
    store = BlobStore.open("s3://{BUCKET}/blobs")
    store.publish(store.stage(workspace, fileset, path, [b"x"]))
    return store
kept = put("parent")
child = os.fork()
put("child" if child == 0 else "parent-again")
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment(s3.endpoint), "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )

    assert {name.rpartition("/")[2] for name in s3.keys(key(workspace))} == {
        "parent",
        "child",
        "parent-again",
    }


@pytest.mark.long
def test_a_large_file_passes_in_constant_memory(s3: S3Server, workspace: UUID, flat: Flat) -> None:
    megabytes = 128
    program = f"""
import os
from uuid import UUID
from app.storage.blob_store import BlobStore
from tests.support.figures import peak_mib
workspace, fileset = UUID("{workspace}"), UUID("{FILESET}")
store = BlobStore.open("s3://{BUCKET}/blobs")
def travel(megabytes):
    store.publish(store.stage(workspace, fileset, "a", (b"x" * 1048576 for _ in range(megabytes))))
    assert sum(map(len, store.read(workspace, fileset, "a"))) == megabytes * 1048576
travel(1)
before = peak_mib([os.getpid()])
travel({megabytes})
print(before, peak_mib([os.getpid()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment(s3.endpoint), "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )

    before, after = map(float, done.stdout.split())
    flat(f"{megabytes} MiB to a bucket and back, the store alone", before, after, 64)


def test_nothing_hangs_when_a_thread_leaves_in_the_middle_of_an_upload(
    s3: S3Server, store: BlobStore, workspace: UUID
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 9_000_000
        raise ConnectionResetError

    def upload() -> None:
        with suppress(ConnectionResetError):
            store.stage(workspace, FILESET, "a", broken())

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
    assert s3.keys(key(workspace)) == []
