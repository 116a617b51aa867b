"""Several clients at once, each with many transfers at once: all of them go both ways."""

import sys
from multiprocessing import get_context
from pathlib import Path

from nemo_platform import NeMoPlatform

CLIENTS, WORKERS, FILES = 4, 16, 40


def send_and_fetch(base_url: str, workspace: str, number: str) -> None:
    """Upload a directory and download it again; fails if a file is missing or another."""
    client = NeMoPlatform(base_url=base_url, workspace=workspace)
    source, target = Path(f"source-{number}"), Path(f"target-{number}")
    source.mkdir()
    files = {f"{name}.bin": f"{number}-{name}".encode() * 4000 for name in range(FILES)}
    for name, content in files.items():
        (source / name).write_bytes(content)
    fileset = f"many-{number}"
    client.files.upload(
        local_path=f"{source}/",
        remote_path="",
        fileset=fileset,
        fileset_auto_create=True,
        max_workers=WORKERS,
    )
    client.files.download(fileset=fileset, remote_path="", local_path=f"{target}/", max_workers=WORKERS)
    assert {path.name: path.read_bytes() for path in target.rglob("*.bin")} == files


def main(base_url: str, workspace: str) -> int:
    """Run them all; the exit status is 1 if one fails."""
    # Forked, because each would load the SDK anew.
    processes = get_context("fork")
    clients = [
        processes.Process(target=send_and_fetch, args=(base_url, workspace, str(number)))
        for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return max(abs(client.exitcode) for client in clients)


sys.exit(main(*sys.argv[1:]))
