"""What the bench measures, what it is compared with, and what it should be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound of a row's ratio, or of its value."""

    bound: float
    is_upper: bool = True
    of_value: bool = False

    def __str__(self) -> str:
        what = "value" if self.of_value else "ratio"
        return f"{what} {'≤' if self.is_upper else '≥'} {self.bound:g}"

    def is_met(self, number: float) -> bool:
        """Whether a ratio or a value, whichever it is about, keeps the bound."""
        return number <= self.bound if self.is_upper else number >= self.bound


@dataclass(frozen=True)
class Row:
    """One line of the table, known before it is measured."""

    name: str
    unit: str
    baseline: str
    """What it is compared with, in the same unit."""
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A row as it was measured, or why it was not."""

    row: Row
    value: float | None = None
    baseline: float | None = None
    missing: str = ""

    @property
    def ratio(self) -> float | None:
        """The value in multiples of the baseline."""
        return self.value / self.baseline if self.value is not None and self.baseline else None

    @property
    def is_met(self) -> bool | None:
        """Whether all goals are met; None without a goal, or without a figure."""
        numbers = [(goal, self.value if goal.of_value else self.ratio) for goal in self.row.goals]
        if not numbers:
            return None
        known = [goal.is_met(number) for goal, number in numbers if number is not None]
        return all(known) if len(known) == len(numbers) else None
