"""Everything at once while one part after the other fails; see the package."""

import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random, SystemRandom

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.soak import checks
from tests.soak.course import Course, Diary
from tests.soak.creators import Creator
from tests.soak.customers import Customer, Deleter, Prober, Reader
from tests.soak.plan import plan
from tests.soak.scene import setting
from tests.soak.watch import SilenceWatch
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Tell
from tests.support.processes import NewWord
from tests.support.stores import STORES

SECONDS = float(os.environ.get("SOAK_SECONDS") or 120)
SEED = int(os.environ.get("SOAK_SEED") or SystemRandom().randrange(10**6))
LONGEST_SILENCE_S = 60.0
CREATORS = ("lab", "team")
logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 20 * DEADLINE_S)
@pytest.mark.needs("cc", package="gcc")
@pytest.mark.parametrize("kind", STORES)
def test_nothing_is_lost_and_nothing_left_whatever_fails(
    kind: str, tmp_path: Path, new_word: NewWord, tell: Tell
) -> None:
    again = f"make soak SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g}"
    diary, told = Diary(tmp_path / "diary.txt"), f"seed {SEED}, {kind}; logs in {tmp_path}; again: {again}"
    diary.tell(told)
    try:
        soak(kind, tmp_path, new_word, diary, tell)
    except BaseException as error:
        error.add_note(told)
        raise


def soak(kind: str, directory: Path, new_word: NewWord, diary: Diary, tell: Tell) -> None:
    random, marks = Random(SEED), directory / "marks"
    marks.mkdir()
    with ExitStack() as opened:
        scene = opened.enter_context(setting(kind, directory))
        watch = opened.enter_context(SilenceWatch(scene.stack.database_url))
        ledger, url = scene.ledger, scene.stack.api_url
        prober = opened.enter_context(Prober(url, ledger, Random(f"{SEED} prober")))
        course = Course(scene, watch, prober, diary)
        customers: list[Customer] = [
            Creator(url, ledger, Random(f"{SEED} {name}"), name=name, new_word=new_word, marks=marks)
            for name in CREATORS
        ]
        customers += [deleter := Deleter(url, ledger, Random(f"{SEED} deleter"))]
        customers += [Reader(url, ledger, Random(f"{SEED} reader"))]
        for customer in customers:
            opened.enter_context(customer).begin()
        until = time.monotonic() + SECONDS / len(STORES)
        for phase in plan(kind, random):
            course.go_through(phase, random)
            if ledger.wrong or time.monotonic() > until:
                break
        for customer in customers:
            customer.end()
        assert not ledger.wrong, "\n".join(ledger.wrong)

        engine = create_engine(scene.stack.database_url)
        with Session(engine) as session:
            course.settle(session)
            lost = [*checks.lost(session, scene, course.phases, marks)]
            course.delete_rest(deleter)
            course.settle(session)
            left = [*checks.left(session, scene)]
            failures = checks.failed(session)
            unexplained = [*checks.unexplained(failures, course.phases)]
        engine.dispose()

        diary.tell(", ".join(f"{number} {what}" for what, number in sorted(ledger.counts.items())))
        for line in (
            f"{len(course.phases)} faults; maintenance was silent for {watch.longest_s:.0f} s at most",
            f"deletions that were FAILED for a while: {len(failures)}; without a fault: {unexplained or 'none'}",
            f"lost: {lost or 'nothing'}; left: {left or 'nothing'}",
        ):
            diary.tell(line)
            tell(f"soak, seed {SEED}, {kind}: {line}")
        assert not ledger.wrong, "\n".join(ledger.wrong)
        assert not lost
        assert not left
        assert not unexplained
        assert watch.longest_s <= LONGEST_SILENCE_S
