"""Clocks of programs, which tests move while the programs run. Needs a C compiler: `needs("cc", package="gcc")`."""

import os
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The clock of the programs that start with its `environment`; right at first."""

    def __init__(self, directory: Path) -> None:
        """Compile what is preloaded, and keep it in `directory` with how far ahead the clock is."""
        directory.mkdir(parents=True)
        library, self._offset = directory / "clock.so", directory / "offset"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O", "-Wall", "-Werror", "-o", library, _SOURCE], check=True
        )
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(self._offset)}
        self._offset.write_bytes(bytes(8))

    def move(self, seconds: float) -> None:
        """From now on the clock is so many seconds ahead of the right time; behind it, if negative."""
        with self._offset.open("r+b") as file:
            os.pwrite(file.fileno(), struct.pack("q", round(seconds * 1e9)), 0)  # the programs have mapped it
