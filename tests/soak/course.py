"""The course of a soak: one phase after the other, then nothing but settling."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

from sqlalchemy.orm import Session

from tests.soak import checks
from tests.soak.customers import Deleter, Prober
from tests.soak.faults import acceptable
from tests.soak.plan import Phase
from tests.soak.scene import Scene
from tests.soak.watch import SilenceWatch
from tests.support.deadlines import DEADLINE_S
from tests.support.processes import living

LOOKS_EVERY_S = 0.5
SETTLED_WITHIN_S = 2 * DEADLINE_S


class Diary:
    """What happens, line by line: printed at once, and kept beside the logs."""

    def __init__(self, path: Path) -> None:
        self._path, self._began_at = path, time.monotonic()

    def tell(self, line: str) -> None:
        line = f"{time.monotonic() - self._began_at:6.0f} s  {line}\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        with self._path.open("a") as file:
            file.write(line)


class Course:
    """What is inflicted on a scene. After each phase a prober has to get what it asks for."""

    def __init__(self, scene: Scene, watch: SilenceWatch, prober: Prober, diary: Diary) -> None:
        self.scene, self.phases = scene, list[Phase]()
        self._watch, self._prober, self._diary = watch, prober, diary

    def go_through(self, phase: Phase, random: Random) -> None:
        """Inflict the faults of a phase, and wait until all is well again."""
        names, running = acceptable(phase.faults), self._running()
        self._watch.excuse(is_excused=phase.stops_sweeps)
        phase.began = time.time()
        with ExitStack() as inflicted:
            for fault in phase.faults:
                inflicted.enter_context(fault.inflict(self.scene, random))
            self._wait_for_status(names, phase.name)
            seen = self._wait_for_status(names, phase.name, at_least_s=phase.hold_s)
            if not phase.ends_runs:
                self._look_for_ended(running, phase)
        phase.ended = time.time()
        self._watch.excuse(is_excused=False)
        self._wait_for_status({""}, f"after {phase.name}")
        phase.recovered = time.time()
        self.phases.append(phase)
        self._prober.probe(self.scene.stack.wait_until)
        probed = time.time()
        others = [name or "nothing" for name in seen if name not in names]
        self._diary.tell(
            f"{phase.name}: {phase.ended - phase.began:.0f} s, well {phase.recovered - phase.ended:.0f} s later, "
            f"a job and a DELETE {probed - phase.recovered:.0f} s later; "
            f"/status right {len(seen) - len(others)} of {len(seen)} times"
            + (f", but for {', '.join(others)}" if others else "")
        )

    def _wait_for_status(self, names: set[str], when: str, *, at_least_s: float = 0) -> list[str]:
        """Return once `/status` names one of them first, but no sooner than that; all that it has named."""
        seen: list[str] = []
        begun_at = time.monotonic()

        def is_right() -> bool:
            time.sleep(LOOKS_EVERY_S)  # to look all the time would be a load of its own
            seen.append(self.scene.first_not_ready())
            return seen[-1] in names and time.monotonic() >= begun_at + at_least_s

        try:
            self.scene.stack.wait_until(is_right, f"/status is {sorted(names)}: {when}", timeout_s=DEADLINE_S)
        except AssertionError as error:
            error.add_note(f"/status named first: {seen[-50:]}")
            raise
        return seen

    def _running(self) -> set[str]:
        """The words of what is to run, and does."""
        return {word for word in self.scene.ledger.running() if living(word)}

    def _look_for_ended(self, running: set[str], phase: Phase) -> None:
        dead = {word for word in running if not living(word)}
        is_missed = self.scene.ledger.running()
        for word in dead & is_missed.keys():
            tenant, run = is_missed[word]
            self.scene.ledger.wrong.append(f"{tenant.name}: {run.name} has ended while {phase.name}")

    def settle(self, session: Session) -> None:
        """Wait until nothing is on its way any more."""
        found: list[str] = []

        def is_settled() -> bool:
            time.sleep(LOOKS_EVERY_S)
            found[:] = checks.unsettled(session, self.scene)
            return not found

        try:
            self.scene.stack.wait_until(
                is_settled, "all that was asked for has ended", timeout_s=SETTLED_WITHIN_S
            )
        except AssertionError as error:
            error.add_note("still on its way:\n" + "\n".join(found))
            raise

    def delete_rest(self, deleter: Deleter) -> None:
        """Delete all that nobody has deleted yet."""
        for tenant in self.scene.ledger.living():
            deleter.delete(tenant)
