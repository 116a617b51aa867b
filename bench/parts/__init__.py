"""What is measured, part by part, in the order of a run."""

from bench.parts import (
    answers,
    failures,
    filesets,
    gone,
    lists,
    memory,
    operators,
    requests,
    rows,
    small,
    starting,
    throughput,
)
from bench.run import Part

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        starting.PART,
        requests.PART,
        throughput.PART,
        lists.PART,
        answers.PART,
        memory.PART,
        gone.PART,
        small.PART,
        rows.PART,
        failures.PART,
        operators.PART,
        filesets.PART,
    )
}
"""By name. Parts that make little work come first: a large table makes those behind it slower."""
