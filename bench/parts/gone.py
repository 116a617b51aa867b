"""From DELETE until everything is gone, while nothing else is deleted."""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import count
from time import monotonic
from uuid import UUID

from app.cleanup.kinds import ORDER
from bench.contents import make_ten_resources
from bench.deleting import ALL, seconds_to_done
from bench.figures import Figure, Goal, Row
from bench.run import Part, Run, alternate

_ROW = Row(
    "from DELETE until ten resources are gone, p50",
    "s",
    "one DELETE per table and the removal of the files",
    (Goal(0.15, of_value=True),),
)


def _measure(run: Run) -> Iterator[Figure]:
    run.product.start(*ALL)
    numbers = count()
    things = {
        name: partial(one, run, numbers) for name, one in (("ours", _delete), ("plain", _delete_plainly))
    }
    for thing in things.values():
        thing()
    found = alternate(run, things, within_s=25)
    yield Figure(_ROW, found["ours"]["s"], found["plain"]["s"])


def _delete(run: Run, numbers: Iterator[int]) -> dict[str, float]:
    name = f"gone-{next(numbers)}"
    make_ten_resources(run.product, name)
    return {"s": seconds_to_done(run.product, name, until=run.deadline)}


def _delete_plainly(run: Run, numbers: Iterator[int]) -> dict[str, float]:
    workspace = make_ten_resources(run.product, f"gone-{next(numbers)}")
    with run.product.connect(autocommit=False) as connection:
        began = monotonic()
        for table in (kind.model.__tablename__ for kind in ORDER):
            connection.execute(f"DELETE FROM {table} WHERE workspace_id = %s", [workspace])
        connection.execute("DELETE FROM workspaces WHERE id = %s", [workspace])
        connection.commit()
        shutil.rmtree(_files_of(run, workspace))
        return {"s": monotonic() - began}


def _files_of(run: Run, workspace: UUID) -> str:
    return str(run.product.data_dir / "blobs" / "files" / str(workspace))


PART = Part("gone", (_ROW,), _measure, usual_s=35)
