"""Python imports this at its start: the clock of the program is `CLOCK_OFFSET_S` seconds ahead.

Programs find it when this directory is on their PYTHONPATH. `time.monotonic()` stays right, as on a host whose clock
is wrong.
"""

import os
import time
from datetime import timedelta

OFFSET_S = float(os.environ.get("CLOCK_OFFSET_S", "0"))

if OFFSET_S:
    from app import clock

    _true_time, _true_now = time.time, clock.now
    time.time = lambda: _true_time() + OFFSET_S
    clock.now = lambda: _true_now() + timedelta(seconds=OFFSET_S)
