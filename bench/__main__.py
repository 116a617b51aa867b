"""`make bench`: print one Markdown table, and write it and a JSON file below `.cache/bench`."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from bench.parts import PARTS
from bench.report import as_json, markdown
from bench.run import SCALES, Run, tell
from devstack.__main__ import CHECKOUT


def main() -> int:
    """Run the parts that are asked for; the exit status is 1 if a row could not be measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="PARTS", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--scale", choices=SCALES, default="usual")
    parser.add_argument("--output", type=Path, default=CHECKOUT / ".cache" / "bench", metavar="DIRECTORY")
    asked = parser.parse_args()
    named = {name for name in asked.only.split(",") if name} or set(PARTS)
    if unknown := sorted(named - set(PARTS)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    # In their own order: what one deletes, another reads.
    chosen = [name for name in PARTS if name in named]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="workspaces-bench-") as directory,
        Run(SCALES[asked.scale], Path(directory)) as run,
    ):
        figures = list(run.measure(*(PARTS[name] for name in chosen)))
    took_s = time.monotonic() - began
    about = {
        "scale": asked.scale,
        "parts": chosen,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[2],
        "python": platform.python_version(),
        "took_s": round(took_s, 1),
    }
    table = markdown(figures)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "results.md").write_text(f"{table}\n")
    (asked.output / "results.json").write_text(json.dumps(as_json(figures, **about), indent=1) + "\n")
    sys.stdout.write(f"{table}\n")
    tell(f"{len(figures)} rows in {took_s:.0f} s; also in {asked.output}")
    return int(any(figure.missing for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
