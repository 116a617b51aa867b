"""The soft time limit in a process of a pool: a task is interrupted, and what tells its result is not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIMITED = """
import os, signal, time
from billiard.pool import Pool
from celery.signals import task_postrun, task_prerun
from workers import time_limit

def at_work():
    task_prerun.send(None)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)
    finally:
        task_postrun.send(None)

def between():
    os.kill(os.getpid(), signal.SIGUSR1)
    return os.getpid()

pool = Pool(1)
try:
    pool.apply(at_work)
except BaseException as error:
    print(type(error).__name__)
pid = pool.apply(between)
print(pool.apply(os.getpid) == pid)
"""


@pytest.mark.timeout(120)
def test_it_interrupts_a_task_and_nothing_between_two() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["SoftTimeLimitExceeded", "True"], done.stderr
