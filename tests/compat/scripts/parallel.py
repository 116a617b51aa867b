"""Several clients at once, each with many transfers at once: all of them go both ways."""

import subprocess
import sys
from pathlib import Path

from nemo_platform import NeMoPlatform

CLIENTS, WORKERS, FILES = 4, 16, 60


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
    command = [sys.executable, __file__, base_url, workspace]
    clients = [subprocess.Popen([*command, str(number)]) for number in range(CLIENTS)]
    return max(abs(client.wait()) for client in clients)


if len(sys.argv) == 4:
    send_and_fetch(*sys.argv[1:])
else:
    sys.exit(main(*sys.argv[1:]))
