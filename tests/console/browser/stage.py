"""A running product for browsers, whose store refuses to remove the filesets that a test names."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.orm import Session

from tests import factories
from tests.faults.world import World

WHO = "ada@example.com"
STUCK = "stuck"
"""The name of a fileset that the store refuses to remove."""


@dataclass(frozen=True)
class Failed:
    """A FAILED deletion, and the fileset that is in its way."""

    id: str
    name: str
    fileset: UUID


@dataclass
class Stage(World):
    """Workspaces that are deleted for real. All tests share it: each has names and reasons of its own."""

    _refused: dict[str, str] = field(default_factory=dict)

    def make(self, *names: str, protected: bool = False) -> dict[str, UUID]:
        """Workspaces with two filesets, one of them STUCK, whose id is given by name."""
        with Session(self.engine) as session:
            found = {}
            for name in names:
                workspace = factories.make_workspace(session, name, is_protected=protected)
                for fileset in ("loose", STUCK):
                    row = factories.make_fileset(
                        session, workspace, fileset, store=self.store, files={"disk.img": b"bytes"}
                    )
                found[name] = row.id
            session.commit()
            return found

    def fail(self, *names: str, why: str) -> list[Failed]:
        """Deletions of workspaces that it makes, once all are FAILED; `why` is a part of what the store says."""
        filesets = self.make(*names)
        self._set(self._refused | {str(one): f"forbidden:{why}" for one in filesets.values()})
        failed = [Failed(self.delete(name), name, fileset) for name, fileset in filesets.items()]
        for one in failed:
            self.wait_for_state(one.id, "FAILED")
        return failed

    def mend(self, failed: Iterable[Failed]) -> None:
        """The store removes what was in their way from now on."""
        mended = {str(one.fileset) for one in failed}
        self._set({fileset: fault for fileset, fault in self._refused.items() if fileset not in mended})

    def state_of(self, failed: Failed) -> str:
        """The state of the deletion now."""
        return str(self.report(failed.id)["state"])

    def _set(self, faults: dict[str, str]) -> None:
        self._refused = faults
        written = self.stack.blob_root / "faults.json.new"
        written.write_text(json.dumps(faults))
        written.rename(self.stack.blob_root / "faults.json")
