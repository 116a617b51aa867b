"""Filesets of one file each, in stores that answer at once or late."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from uuid import UUID, uuid4

from bench.contents import make_filesets, make_workspace
from bench.deleting import ALL, begin, seconds_of_work, wait_until_done
from bench.figures import Figure, Row
from bench.product import Product
from bench.run import Part, Run
from bench.slow_store.slow_store import SlowFileSystem

_SHARES = {0: 1, 20: 4, 200: 20}
"""By latency in milliseconds: of how many filesets one is measured with it."""
_ROWS = {
    latency: Row(
        f"filesets deleted per second, store {latency} ms away", "/s", "listed and removed one by one"
    )
    for latency in _SHARES
}


def _measure(run: Run) -> Iterator[Figure]:
    directory = run.directory("slow")
    root, latency = directory / "store", directory / "latency"
    latency.write_text("0")
    product = run.another_product("with-slow-store", storage_url=f"slow://{root}")
    product.start(*ALL)
    for milliseconds, share in _SHARES.items():
        number = max(2, run.scale.filesets // share)
        made = _make(product, root, f"slow-{milliseconds}", number)
        plain = _files(root, uuid4(), [uuid4() for _ in range(number)])
        latency.write_text(str(milliseconds / 1000))
        deletion = begin(product, made)
        wait_until_done(product, deletion, until=run.deadline)
        per_s = number / seconds_of_work(product, deletion)
        yield Figure(_ROWS[milliseconds], per_s, _plain_rate(plain, root))
        latency.write_text("0")


def _make(product: Product, root: Path, name: str, number: int) -> str:
    workspace = make_workspace(product, name)
    _files(root, workspace, make_filesets(product, workspace, number))
    return name


def _files(root: Path, workspace: UUID, filesets: list[UUID]) -> list[Path]:
    """Put a file into each fileset, past the latency; their directories."""
    made = [root / "files" / str(workspace) / str(one) for one in filesets]
    for directory in made:
        directory.mkdir(parents=True)
        (directory / "data.bin").write_bytes(bytes(1000))
    return made


def _plain_rate(directories: list[Path], root: Path) -> float:
    """Filesets per second through the same store, with two requests for each."""
    store = SlowFileSystem(str(root))
    began = monotonic()
    for directory in directories:
        for path in store.find(str(directory)):
            store.rm_file(path)
    return len(directories) / (monotonic() - began)


PART = Part("filesets", tuple(_ROWS.values()), _measure, usual_s=75)
