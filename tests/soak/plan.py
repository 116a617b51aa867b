"""Which faults come in which order, as the seed has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.soak.faults import COMMON, OF_STORES, Fault

PAIRED, LONG = 0.3, 0.25
"""The shares of phases with a second fault, and of those that are long."""
SHORT_S, LONG_S = (5.0, 20.0), (35.0, 50.0)
"""How long a fault goes on once `/status` has named it. The long ones outlast every lease."""


@dataclass
class Phase:
    """A time in which one fault was inflicted, or two. Times are in seconds since the epoch."""

    faults: list[Fault]
    hold_s: float
    began: float = 0
    ended: float = 0
    recovered: float = 0

    @property
    def name(self) -> str:
        return ", and ".join(fault.name for fault in self.faults)

    @property
    def stops_sweeps(self) -> bool:
        return any(fault.stops_sweeps for fault in self.faults)

    @property
    def ends_runs(self) -> bool:
        return any(fault.ends_runs for fault in self.faults)

    @property
    def reasons(self) -> str:
        return "|".join(fault.reasons for fault in self.faults if fault.reasons)


def plan(kind: str, random: Random) -> Iterator[Phase]:
    """Phases without end. Each common fault comes once before one comes again, a fault of the store every fourth time.

    With the same random numbers the store on a disk and that in a bucket begin at the two ends of the same list.
    """
    of_store = OF_STORES[kind]
    while True:
        faults = random.sample(COMMON, len(COMMON))
        for number, fault in enumerate(faults if kind == "disk" else reversed(faults)):
            if number % 3 == 0:
                yield _phase(of_store[number // 3 % len(of_store)], random)
            yield _phase(fault, random)


def _phase(fault: Fault, random: Random) -> Phase:
    faults = [fault]
    if random.random() < PAIRED:
        # Of different parts: a killed program cannot be stopped too.
        faults += random.sample([other for other in COMMON if other.first != fault.first], 1)
        faults.sort(key=lambda one: not one.starts_programs)  # the last to be inflicted ends first
    return Phase(faults, random.uniform(*(LONG_S if random.random() < LONG else SHORT_S)))
