"""Files that are larger than any memory should be asked for, and uploads that stand still."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.compat.nemo import HERE, Nemo
from tests.support.stack import Stack

MEGABYTES = 1024
ALLOWED_GROWTH_MIB = 64
IDLE_S = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("large"), parts=["web"], upload_idle_seconds=IDLE_S) as stack:
        yield stack


def peak_mib(stack: Stack) -> float:
    """The most memory that a process of the server ever had."""
    [web] = stack.running("web")
    processes = psutil.Process(web.process.pid).children(recursive=True)
    assert processes
    statuses = [Path(f"/proc/{process.pid}/status").read_text() for process in processes]
    lines = [line for status in statuses for line in status.splitlines() if line.startswith("VmHWM:")]
    return max(int(line.split()[1]) for line in lines) / 1024


def test_a_gibibyte_passes_through_a_server_whose_memory_stays_flat(
    stack: Stack, nemo: Nemo, workspace: str
) -> None:
    script = HERE / "scripts" / "large.py"
    warm = nemo.run(script, stack.api_url, workspace, "1")
    assert warm.returncode == 0, warm.stdout + warm.stderr
    before, started = peak_mib(stack), time.monotonic()

    done = nemo.run(script, stack.api_url, workspace, str(MEGABYTES))

    assert done.returncode == 0, done.stdout + done.stderr + stack.tails()
    after = peak_mib(stack)
    print(  # noqa: T201 -- a number to be looked at
        f"\n{MEGABYTES} MiB in {time.monotonic() - started:.0f} s; the server's peak memory: {before:.0f} MiB "
        f"before, {after:.0f} MiB after (x{after / before:.2f})\n{done.stdout}"
    )
    assert after - before < ALLOWED_GROWTH_MIB
    fileset = f"/apis/files/v2/workspaces/{workspace}/filesets/corpus"
    assert stack.client.delete(fileset).is_success  # nobody needs a gigabyte afterwards


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
    stack: Stack, workspace: str, announced: str
) -> None:
    filesets = f"/apis/files/v2/workspaces/{workspace}/filesets"
    assert stack.client.post(filesets, json={"name": "data"}).is_success
    server = urlsplit(stack.api_url)
    head = f"PUT {filesets}/data/-/a HTTP/1.1\r\nHost: x\r\nContent-Type: x/x\r\n{announced}\r\n\r\n"
    with socket.create_connection((server.hostname, server.port), timeout=4 * IDLE_S) as connection:
        connection.sendall(head.encode() + b"4\r\nhalf\r\n")
        started = time.monotonic()
        answer = b""
        while chunk := connection.recv(65536):  # until the server hangs up
            answer += chunk

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Nothing was sent for 3 s" in answer
    assert IDLE_S - 0.5 < time.monotonic() - started < 3 * IDLE_S
    assert stack.client.get(f"{filesets}/data/files").json()["data"] == []
    assert [path for path in (stack.blob_root / "staging").rglob("*") if path.is_file()] == []
