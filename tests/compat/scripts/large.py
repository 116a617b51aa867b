"""Send and fetch one large file in every way that the SDK has; prints what took how long."""

import hashlib
import sys
import time
from pathlib import Path

import httpx
from nemo_platform import NeMoPlatform

BLOCK = 1024 * 1024


def make(path: Path, megabytes: int) -> str:
    """Write a file of which no two blocks are alike; its digest."""
    digest = hashlib.blake2b()
    with path.open("wb") as file:
        for number in range(megabytes):
            block = number.to_bytes(8, "big") * (BLOCK // 8)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def timed(what: str, started: float) -> None:
    print(f"{what}: {time.monotonic() - started:.1f} s")  # noqa: T201 -- what the test shows


def main(base_url: str, workspace: str, megabytes: int) -> None:
    client = NeMoPlatform(base_url=base_url, workspace=workspace)
    source, target = Path("large.bin"), Path("fetched.bin")
    digest = make(source, megabytes)

    started = time.monotonic()
    client.files.upload(
        local_path=str(source), remote_path="large.bin", fileset="corpus", fileset_auto_create=True
    )
    timed("SDK upload", started)
    [file] = client.files.list(fileset="corpus").data
    assert (file.path, file.size) == ("large.bin", megabytes * BLOCK)

    started = time.monotonic()
    client.files.download(fileset="corpus", remote_path="large.bin", local_path=str(target))
    timed("SDK download", started)
    [fetched] = [target] if target.is_file() else list(target.rglob("large.bin"))
    assert digest_of(fetched) == digest
    fetched.unlink()

    started = time.monotonic()
    hashed = hashlib.blake2b()
    # After the download of one file the SDK's cache takes that file for a directory.
    client.files.fsspec.invalidate_cache()
    with client.files.fsspec.open(f"{workspace}/corpus#large.bin", "rb", block_size=16 * BLOCK) as opened:
        while block := opened.read(4 * BLOCK):
            hashed.update(block)
    timed("fsspec read", started)
    assert hashed.hexdigest() == digest

    middle = megabytes // 2
    part = client.files.fsspec.cat_file("corpus#large.bin", start=middle * BLOCK, end=middle * BLOCK + 16)
    assert part == middle.to_bytes(8, "big") * 2

    started = time.monotonic()
    with source.open("rb") as opened:
        answer = httpx.put(
            f"{base_url}/apis/files/v2/workspaces/{workspace}/filesets/corpus/-/large.bin",
            files={"file": opened},
            timeout=60,
        )
    timed("form upload", started)
    assert (answer.status_code, answer.json()["size"]) == (200, megabytes * BLOCK), answer.text
    source.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
