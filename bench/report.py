"""The results as a Markdown table and as JSON."""

from collections.abc import Iterable
from typing import Any

from bench.figures import Figure

_HEAD = ("What", "Value", "Baseline", "Ratio", "Goal", "Met")


def markdown(figures: Iterable[Figure]) -> str:
    """One table with a line for each figure."""
    lines = [_HEAD, *(_cells(figure) for figure in figures)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], ("---",) * len(_HEAD), *lines[1:]))


def _cells(figure: Figure) -> tuple[str, ...]:
    row = figure.row
    goals = ", ".join(map(str, row.goals)) or "-"
    if figure.missing:
        return row.name, f"not measured: {figure.missing}", row.baseline, "-", goals, "-"
    baseline = row.baseline if figure.baseline is None else f"{row.baseline}: {_number(figure.baseline)}"
    ratio = "-" if figure.ratio is None else _number(figure.ratio)
    met = {True: "yes", False: "**no**", None: "-"}[figure.is_met]
    return row.name, f"{_number(figure.value or 0)} {row.unit}", baseline, ratio, goals, met


def _number(number: float) -> str:
    """Three significant digits; large numbers in full."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def as_json(figures: Iterable[Figure], **about: Any) -> dict[str, Any]:
    """The figures with what the run says `about` itself."""
    return {
        **about,
        "rows": [
            {
                "name": one.row.name,
                "unit": one.row.unit,
                "value": one.value,
                "baseline_name": one.row.baseline,
                "baseline": one.baseline,
                "ratio": one.ratio,
                "goals": [str(goal) for goal in one.row.goals],
                "is_met": one.is_met,
                "missing": one.missing,
            }
            for one in figures
        ],
    }
